//! Pictures that come in: received before their prediction is queued, and read for the worker that draws it.
//!
//! What always holds: a prediction with pictures is accepted together with their files, or not at all; from then on its
//! input has their URLs on this server, and nothing else that was said of them. What its worker gets is read from the
//! store, so a restart and another worker make no difference.

use std::sync::Arc;
use std::time::Duration;

use geometry::Geometry;
use protocol::{Format, Given, Input};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::given_pictures::{
    Fitting, Full, Pixels, Unfetched, decode, fields, fitted, format_of, hash, misplaced, names, size,
};
use crate::input::data_uri::head;
use crate::input::{Invalid, Sent};
use crate::lifecycle::End;
use crate::output;
use crate::store::{Kind, Picture, StoreError, Which};
use crate::wire::Urls;

/// The wait after a picture could not be read from the store.
const RETRY: Duration = Duration::from_secs(1);

/// The pictures of a request, ready to be stored, and the room that they take until their prediction has ended.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) pictures: Vec<Picture>,
    pub(super) room: Option<OwnedSemaphorePermit>,
    /// Width and height of the `image` among them.
    pub(super) image: Option<(u32, u32)>,
}

/// Why pictures were not received.
#[derive(Debug)]
pub(super) enum Unreceived {
    /// They are at fault.
    Invalid(Vec<Invalid>),
    /// There is no room.
    Full,
    /// The store failed.
    Store(StoreError),
}

impl Unreceived {
    /// One of them is at fault, for a reason in words for whoever sent it.
    fn invalid(field: &str, message: String) -> Self {
        Self::Invalid(vec![Invalid { field: field.to_owned(), message, kind: "value_error" }])
    }
}

/// Where a picture lies in the panorama, and how far it is drawn again.
#[derive(Clone, Copy, Debug)]
struct Laid {
    left: Option<u32>,
    strength: Option<f64>,
    size: (u32, u32),
}

/// A picture that was looked at.
struct Seen {
    bytes: Arc<[u8]>,
    format: Format,
    size: (u32, u32),
    laid: Option<Laid>,
}

/// Reads a picture, lays it into what is kept of the panorama, and checks that it can be what the input says. Takes up
/// to a second.
///
/// # Errors
/// The field that is at fault, and why.
fn look_at(
    bytes: Vec<u8>,
    field: &str,
    mut input: Input,
    geometry: Geometry,
    how: Option<(Fitting, Option<(u32, u32)>)>,
) -> Result<Seen, (String, String)> {
    let wrong = |why: String| (field.to_owned(), why);
    let pixels = decode(&bytes).map_err(wrong)?;
    let (mut size, mut format) = ((pixels.width, pixels.height), format_of(&bytes).map_err(wrong)?);
    let mut bytes = bytes;
    if let Some((Fitting { fill, redraw }, crop)) = how {
        let canvas = (input.width, input.height);
        let laid = fitted(pixels, fill, geometry, (canvas, crop), input.image_left);
        let laid = laid.map_err(|why| (why.field().to_owned(), format!("`{}` {why}", why.field())))?;
        if let Some(Pixels { width, height, rgb }) = laid {
            let png = output::picture(&rgb, width, height, None);
            bytes = png.map_err(|error| wrong(format!("the picture cannot be scaled: {error}")))?;
            (size, format) = ((width, height), Format::Png);
        }
        // Columns are counted from where what is kept begins.
        let inset = crop.filter(|_| size.0 < canvas.0).map_or(0, |(width, _)| (canvas.0 - width) / 2);
        input.image_left = input.image_left.map(|left| left.saturating_add(inset));
        let placed = geometry.place(size, canvas, input.image_left);
        let leaves_nothing = placed.is_ok_and(|placed| placed.width == canvas.0);
        input.strength = input.strength.or(redraw.filter(|_| leaves_nothing));
    }
    if let Some((field, why)) = misplaced(&input, geometry, field, size) {
        return Err((field.to_owned(), why));
    }
    let laid = how.map(|_| Laid { left: input.image_left, strength: input.strength, size });
    Ok(Seen { bytes: bytes.into(), format, size, laid })
}

/// The name in the URL of a file of this server, under whatever address the client reaches it: nobody else has names
/// like these.
fn file_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let (_, name) = rest.rsplit_once("/files/")?;
    output::is_name(name).then_some(name)
}

impl Shared {
    /// Receives the pictures that an input names; it then has their URLs on this server, whose address is `base`.
    /// What is kept of the panorama, if that is less than is drawn, decides with `fitting` how `image` lies in it.
    pub(super) async fn receive(
        &self,
        input: &mut Input,
        mut sent: Sent,
        base: &str,
        (fitting, crop): (Fitting, Option<(u32, u32)>),
    ) -> Result<Received, Unreceived> {
        let (asked, urls) = (input.clone(), Urls::new(base, ""));
        let (mut pictures, mut errors, mut laid) = (Vec::new(), Vec::new(), None);
        for (field, said) in fields(input) {
            let Some(url) = said.as_deref() else { continue };
            let how = (field == "image").then_some((fitting, crop));
            match self.receive_one(&asked, (field, url), (sent.take(field), base), how).await {
                Ok((picture, place)) => {
                    laid = laid.or(place);
                    *said = picture.file.as_deref().map(|name| urls.file(name));
                    pictures.push(picture);
                }
                Err(Unreceived::Invalid(more)) => errors.extend(more),
                Err(other) => return Err(other),
            }
        }
        if !errors.is_empty() {
            return Err(Unreceived::Invalid(errors));
        }
        if let Some(Laid { left, strength, .. }) = laid {
            (input.image_left, input.strength) = (left, strength);
        }
        let size: usize = pictures.iter().map(|picture: &Picture| picture.bytes.len()).sum();
        let in_memory = !self.store.durable() && size > 0;
        let room = in_memory.then(|| self.picture_intake.keep(size)).transpose().map_err(|Full| Unreceived::Full)?;
        Ok(Received { pictures, room, image: laid.map(|laid| laid.size) })
    }

    /// Receives one picture: its bytes from the request, from this server or from another, and whether it can be what
    /// the input says.
    async fn receive_one(
        &self,
        input: &Input,
        (field, url): (&str, &str),
        (sent, base): (Option<Result<Vec<u8>, String>>, &str),
        how: Option<(Fitting, Option<(u32, u32)>)>,
    ) -> Result<(Picture, Option<Laid>), Unreceived> {
        let invalid = |message| Unreceived::invalid(field, message);
        // What was fetched takes room until it is decoded.
        let (bytes, _fetched) = match sent {
            Some(sent) => (sent.map_err(invalid)?, None),
            None if head(url).is_some() => return Err(invalid("the data URI has no data".to_owned())),
            None => {
                let here = url.strip_prefix(base).and_then(|path| path.strip_prefix("/files/"));
                let stored = match file_of(url).or(here) {
                    Some(name) => self.store.file(name).await.map_err(Unreceived::Store)?,
                    None => None,
                };
                match stored {
                    Some(bytes) => (bytes.to_vec(), None),
                    None if here.is_some() => {
                        let gone = "this server has no such file, or no longer keeps it; send the picture again";
                        return Err(invalid(gone.to_owned()));
                    }
                    None => match self.picture_intake.fetcher.fetch(url).await {
                        Ok((bytes, room)) => (bytes, room),
                        Err(Unfetched::Refused(why)) => return Err(invalid(why)),
                        Err(Unfetched::Full) => return Err(Unreceived::Full),
                    },
                }
            }
        };
        let geometry = self.table().geometry();
        // What is made of it is decoded, too.
        let most = size(&bytes).map_err(invalid)?.max(u64::from(input.width) * u64::from(input.height));
        let _room = self.picture_intake.pixels.hurry(most).await.map_err(|Full| Unreceived::Full)?;
        let (asked, named) = (input.clone(), field.to_owned());
        let read = tokio::task::spawn_blocking(move || look_at(bytes, &named, asked, geometry, how));
        let unread = || (field.to_owned(), "the picture cannot be read".to_owned());
        let Seen { bytes, format, size, laid } =
            read.await.unwrap_or_else(|_| Err(unread())).map_err(|(field, why)| Unreceived::invalid(&field, why))?;
        tracing::debug!(field, bytes = bytes.len(), width = size.0, height = size.1, "a picture was received");
        let name = output::name(format);
        let name = name.map_err(|error| Unreceived::Store(StoreError::Engine(error.to_string())))?;
        let which = Which { kind: Kind::Input(field.to_owned()), n: 0 };
        Ok((Picture { which, media: format.media().to_owned(), file: Some(name), bytes }, laid))
    }

    /// Sends a job that a worker holds, once the pictures that its input names are read.
    pub(super) fn send_with_pictures(self: &Arc<Self>, worker: usize, job: String, active: Arc<ActivePrediction>) {
        let shared = Arc::clone(self);
        let span = active.span.clone();
        let sending = async move {
            let read = active.stopping.run_until_cancelled(shared.read(worker, &job, &active)).await;
            let mut table = shared.table();
            let slot = table.workers.slot(worker);
            if !slot.holds(&job, &active) {
                return;
            }
            match read {
                // A wish to stop that comes from here on is sent behind it.
                Some(Ok((pictures, rgb))) if !active.stopping.is_cancelled() => slot.start(job, &active, pictures, rgb),
                other => {
                    slot.complete(&job, false);
                    drop(table);
                    shared.wake();
                    let end = if let Some(Err(why)) = other { End::Failed(why) } else { End::Canceled };
                    shared.finish(&active, end, Vec::new());
                }
            }
        };
        self.tasks.spawn(sending.instrument(span));
    }

    /// Reads the pictures that an input names, as the frame of its command has them.
    async fn read(
        &self,
        worker: usize,
        job: &str,
        active: &Arc<ActivePrediction>,
    ) -> Result<(Vec<Given>, Vec<u8>), String> {
        let (mut pictures, mut rgb, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
        for (field, _) in names(active.input()) {
            let which = Which { kind: Kind::Input(field.to_owned()), n: 0 };
            let bytes = loop {
                match self.store.picture(active.id(), which.clone()).await {
                    Ok(Some(picture)) => break picture.bytes,
                    Ok(None) => return Err(format!("the picture that was given as `{field}` is not stored any more")),
                    Err(StoreError::Corrupt(why)) => {
                        return Err(format!("the picture that was given as `{field}` is lost: {why}"));
                    }
                    Err(error) => {
                        tracing::error!(%error, field, "a picture cannot be read from the store; trying again");
                        tokio::time::sleep(RETRY).await;
                        if !self.table().workers.slot(worker).holds(job, active) {
                            return Err("its worker was lost".to_owned());
                        }
                    }
                }
            };
            let unreadable = |why: String| format!("the picture that was given as `{field}` cannot be read: {why}");
            let _room = self.picture_intake.pixels.wait(size(&bytes).map_err(unreadable)?).await;
            let read = tokio::task::spawn_blocking(move || decode(&bytes).map(|pixels| (pixels, hash(&bytes))));
            let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
            let (Pixels { width, height, rgb: more }, hash) = read.map_err(unreadable)?;
            if field == "image" {
                active.given.sized(Some((width, height)));
            }
            pictures.push(Given { field: field.to_owned(), width, height });
            hashes.push((field.to_owned(), hash));
            if rgb.is_empty() { rgb = more } else { rgb.extend(more) }
        }
        active.given.read(hashes);
        Ok((pictures, rgb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_this_server_are_known_by_their_name() {
        let name = output::name(Format::Webp).unwrap();
        for base in ["http://localhost:5000", "https://panorama.example", "http://[::1]:5000/below"] {
            assert_eq!(file_of(&format!("{base}/files/{name}")), Some(&*name), "{base}");
        }
        for other in [
            format!("http://a/{name}"),
            format!("http://a/files/{name}?x"),
            format!("http://a/files/{name}/x"),
            format!("ftp://a/files/{name}"),
            format!("/files/{name}"),
            "http://a/files/photo.jpg".to_owned(),
            "http://a/files/".to_owned(),
        ] {
            assert_eq!(file_of(&other), None, "{other}");
        }
    }
}
