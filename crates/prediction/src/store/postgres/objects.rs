//! Pictures that lie in a bucket: putting them before their row is written, and reading what a row names.

use std::sync::Arc;
use std::time::Duration;

use http_client::{Failure, Retries, RetryPolicy};
use tokio::time::{Instant, sleep, timeout};

use super::agree;
use super::looks::{self, By};
use super::place::Place;
use super::rows::{self, Body, Object};
use super::shared::Shared;
use super::writes;
use crate::mutex::lock;
use crate::store::error::StoreError;
use crate::store::record::{Picture, Record, Stored, Which};
use crate::store::work::Claim;

/// How often a request waits for the bucket.
const RETRIES: RetryPolicy = RetryPolicy {
    max_attempts: 3,
    first_wait: Duration::from_millis(200),
    max_wait: Duration::from_secs(1),
    jitter: 0.5,
    max_retry_after: Duration::MAX,
};
/// The waits of a picture that was drawn.
const PUTTING: RetryPolicy = RetryPolicy { max_attempts: u32::MAX, max_wait: Duration::from_secs(10), ..RETRIES };
/// How long a request waits for the bucket in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of putting the pictures of an end.
pub(super) enum Put {
    /// They are in the bucket.
    Done,
    /// The prediction is to stop, or is not held any more.
    Late,
    /// They could not be put for as long as that is tried.
    Failed(String),
}

/// Why a picture could not be read.
enum Unread {
    /// It is not in the bucket.
    Missing(String),
    Store(StoreError),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Asks the bucket, again and again as long as there are retries.
async fn retried<T, F>(retries: &mut Retries, ask: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match retries.next_wait(&Failure::transient(())) {
            Some(wait) => sleep(wait).await,
            None => return Err(error),
        }
    }
}

impl Shared {
    /// The bucket that pictures are read from.
    async fn place(&self) -> Result<Arc<Place>, StoreError> {
        if let Some(place) = self.objects.place() {
            return Ok(place);
        }
        // The other servers began to use one after this one was started.
        let known = self.looks.read(agree::known).await?;
        let none = || StoreError::Corrupt("a picture lies in a bucket, and no setting says in which".to_owned());
        let place = Arc::new(known.ok_or_else(none)?.place(&self.objects.access())?);
        self.objects.set_place(Arc::clone(&place), false);
        Ok(place)
    }

    /// The bytes of a picture.
    async fn fetch(&self, body: Body) -> Result<Arc<[u8]>, Unread> {
        let key = match body {
            Body::Here(bytes) => return Ok(bytes),
            Body::There(key) => key,
        };
        let place = self.place().await?;
        let mut retries = Retries::new(RETRIES);
        let reading = retried(&mut retries, || place.get(&key));
        let got = timeout(PATIENCE, reading).await.unwrap_or_else(|_| Err(place.late()))?;
        got.map(|got| got.bytes).ok_or_else(|| Unread::Missing(place.shown(&key)))
    }

    /// What a look finds, with its bytes. It is made again when these are missing: the prediction may have been
    /// removed in between.
    fn missing(again: bool, unread: Unread) -> Result<(), StoreError> {
        match unread {
            Unread::Missing(_) if again => Ok(()),
            Unread::Missing(object) => Err(StoreError::Corrupt(format!("{object} is not in the bucket any more"))),
            Unread::Store(error) => Err(error),
        }
    }

    /// The record of an id, without a look at its pictures.
    pub(super) async fn record(&self, id: &str) -> Result<Option<Record>, StoreError> {
        let found = self.looks.read(|client| looks::stored(client, By::Id(id))).await?.transpose()?;
        Ok(found.map(|stored| stored.record))
    }

    /// A prediction, with its outputs if its record does not say where they are.
    pub(super) async fn stored(&self, by: By<'_>) -> Result<Option<Stored>, StoreError> {
        for again in [true, false] {
            let found = self.looks.read(|client| looks::stored(client, by)).await?.transpose()?;
            let Some(stored) = found else { return Ok(None) };
            // A URL needs no bytes, and is told while the bucket is away.
            if !stored.record.is_bare() {
                return Ok(Some(stored));
            }
            let several = stored.record.prediction.input.num_outputs > 1;
            let seq = rows::number(stored.record.seq);
            let (first, others) = self.bytes.read(|client| looks::outputs(client, seq, several)).await?;
            let reading = async {
                let (mut picture, mut more) = (None, Vec::new());
                if let Some(first) = first {
                    picture = Some(self.fetch(first).await?);
                }
                for other in others {
                    more.push(self.fetch(other).await?);
                }
                Ok((picture, more))
            };
            match reading.await {
                Ok((picture, more)) => return Ok(Some(Stored { picture, more, ..stored })),
                Err(unread) => Self::missing(again, unread)?,
            }
        }
        Ok(None)
    }

    /// A picture of the prediction of an id.
    pub(super) async fn picture(&self, id: &str, which: &Which) -> Result<Option<Picture>, StoreError> {
        for again in [true, false] {
            let found = self.bytes.read(|client| looks::picture(client, id, which)).await?;
            let Some(rows::Found { which, media, file, body }) = found else { return Ok(None) };
            match self.fetch(body).await {
                Ok(bytes) => return Ok(Some(Picture { which, media, file, bytes })),
                Err(unread) => Self::missing(again, unread)?,
            }
        }
        Ok(None)
    }

    /// The picture that is served under a name.
    pub(super) async fn file(&self, name: &str) -> Result<Option<Arc<[u8]>>, StoreError> {
        for again in [true, false] {
            let Some(body) = self.bytes.read(|client| looks::file(client, name)).await? else { return Ok(None) };
            match self.fetch(body).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(unread) => Self::missing(again, unread)?,
            }
        }
        Ok(None)
    }

    /// Puts pictures that somebody waits for.
    ///
    /// # Errors
    /// If one of them cannot be put; then none is in the bucket.
    pub(super) async fn put(
        self: &Arc<Self>,
        place: &Arc<Place>,
        pictures: &[Picture],
    ) -> Result<Vec<Object>, StoreError> {
        let mut objects = Vec::new();
        let putting = async {
            let mut retries = Retries::new(RETRIES);
            for picture in pictures {
                objects.push(retried(&mut retries, || place.put(picture)).await?);
            }
            Ok(())
        };
        let put = timeout(PATIENCE, putting).await.unwrap_or_else(|_| Err(place.late()));
        if let Err(error) = put {
            self.discard(place, objects);
            return Err(error);
        }
        Ok(objects)
    }

    /// Puts the pictures of an end that are not in `objects` yet, again and again for a while.
    pub(super) async fn put_drawn(
        &self,
        place: &Place,
        claim: Claim,
        pictures: &[Picture],
        objects: &mut Vec<Object>,
    ) -> Put {
        let most = *lock(&self.objects.max_putting);
        let (until, mut retries) = (Instant::now() + most, Retries::new(PUTTING));
        let missing: Vec<_> =
            pictures.iter().filter(|picture| objects.iter().all(|object| object.which != picture.which)).collect();
        for picture in missing {
            loop {
                let error = match place.put(picture).await {
                    Ok(object) => break objects.push(object),
                    Err(error) => error,
                };
                if retries.failed() == 0 {
                    tracing::error!(%error, seq = claim.seq, "a picture is not in the bucket yet; this is tried again");
                }
                if matches!(self.looks.read(|client| writes::is_to_stop(client, claim)).await, Ok(None | Some(true))) {
                    return Put::Late;
                }
                let wait = retries.next_wait(&Failure::transient(())).unwrap_or_default();
                if Instant::now() + wait > until {
                    return Put::Failed(format!(
                        "the picture could not be stored for {} minutes: {error}",
                        most.as_secs() / 60
                    ));
                }
                sleep(wait).await;
            }
        }
        if retries.failed() > 0 {
            tracing::info!(seq = claim.seq, "the pictures of a prediction are in the bucket at last");
        }
        Put::Done
    }

    /// Removes objects that no row names and none will, without anybody waiting for it. What cannot be removed now is
    /// removed later.
    pub(super) fn discard(self: &Arc<Self>, place: &Arc<Place>, objects: Vec<Object>) {
        let keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
        if keys.is_empty() {
            return;
        }
        let (shared, place) = (Arc::clone(self), Arc::clone(place));
        tokio::spawn(async move {
            let (gone, _) = place.remove(&keys).await;
            let left: Vec<String> = keys.into_iter().filter(|key| !gone.contains(key)).collect();
            if !left.is_empty()
                && let Err(failure) = shared.looks.call(|client| agree::outdate(client, left.clone())).await
            {
                // A sweep finds them.
                tracing::debug!(error = %failure.error, "objects in the bucket are left to the sweep");
            }
        });
    }
}
