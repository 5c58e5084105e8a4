//! From files to figures: pictures go to the worker one after the other.

use std::path::{Path, PathBuf};

use anyhow::bail;
use indicatif::ProgressBar;
use prediction::input::Geometry;
use prediction::output::{Made, Read, read};
use prediction::worker::{Message, Worker};
use protocol::{Command, Event, Figures, Net, Windows};
use tokio::sync::mpsc::UnboundedReceiver;

use super::files::Problem;
use super::report::Evaluated;

/// What came of all files.
pub(super) struct Measured {
    pub(super) net: Net,
    pub(super) pictures: Vec<Evaluated>,
    pub(super) problems: Vec<Problem>,
}

/// Evaluates files. `stride` is that of pictures whose text does not tell it.
///
/// # Errors
/// If the worker fails; a file that cannot be evaluated is one of the problems.
pub(super) async fn measure(
    worker: &Worker,
    mut messages: UnboundedReceiver<Message>,
    files: Vec<PathBuf>,
    stride: Option<u32>,
    bar: &ProgressBar,
) -> anyhow::Result<Measured> {
    let Event::Evaluator { net, window, vae_factor } = next(&mut messages).await? else {
        bail!("the worker does not evaluate; build it with this program");
    };
    let geometry = Geometry { window, vae_factor };
    let mut measured = Measured { net, pictures: Vec::new(), problems: Vec::new() };
    for path in files {
        let Read { width, height, rgb, made, .. } = match load(&path).await {
            Ok(read) => read,
            Err(why) => {
                measured.problems.push(Problem::new(&path, why));
                continue;
            }
        };
        let placed = place(geometry, (width, height), made, stride);
        let (windows, job) = (placed.clone().ok(), "evaluate".to_owned());
        worker.send_with(Command::Evaluate { job, width, height, windows }, rgb);
        match next(&mut messages).await? {
            Event::Evaluated { figures, .. } => {
                let notes = notes(&figures, (width, height), placed);
                let stride = windows.map(|windows| windows.stride);
                let figures = figures.into();
                measured.pictures.push(Evaluated { file: path, width, height, stride, figures, notes });
            }
            Event::Failed { error, fatal: false, .. } => {
                measured.problems.push(Problem::new(&path, format!("cannot be evaluated: {error}")));
            }
            Event::Failed { error, .. } => bail!("{error}"),
            other => bail!("the worker answers with {other:?}; build it with this program"),
        }
        bar.inc(1);
    }
    Ok(measured)
}

/// The next event of a worker.
async fn next(messages: &mut UnboundedReceiver<Message>) -> anyhow::Result<Event> {
    while let Some(message) = messages.recv().await {
        match message {
            Message::Event(Event::LoadFailed { error }, _) => bail!("the perceptual network cannot be loaded: {error}"),
            Message::Event(Event::Malformed { error }, _) => {
                bail!("the worker does not understand this program: {error}");
            }
            Message::Event(event, _) => return Ok(event),
            Message::Line(line) => tracing::info!(target: "worker", "{line}"),
            Message::Malformed(why) => tracing::warn!(%why, "the worker sent something that is not an event"),
            Message::Exited(how) => bail!("the worker ended: {how}"),
        }
    }
    bail!("the worker ended without a message")
}

/// Reads a file, off the async threads.
async fn load(path: &Path) -> Result<Read, String> {
    let path = path.to_owned();
    let loading = move || {
        let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
        read(&bytes)
    };
    tokio::task::spawn_blocking(loading).await.map_err(|error| format!("cannot be read: {error}"))?
}

/// Where the windows of a picture were, or why that is not known.
fn place(
    geometry: Geometry,
    (width, height): (u32, u32),
    made: Option<Made>,
    stride: Option<u32>,
) -> Result<Windows, String> {
    if let Some(made) = made.filter(|made| (made.width, made.height) != (width, height)) {
        return Err(format!("its text is of a picture of {}x{}: it was cut or scaled", made.width, made.height));
    }
    let told = made.map(|Made { stride, loop_closure, seamless, .. }| Windows { stride, loop_closure, seamless });
    let given = stride.map(|stride| Windows { stride, loop_closure: false, seamless: false });
    let windows = told.or(given).ok_or("its text does not tell the stride; `--stride` does")?;
    for size in [width, height] {
        let stride = Some(windows.stride.into());
        geometry.check_size(size.into(), stride, &(0..=u64::MAX)).map_err(|error| error.to_string())?;
    }
    Ok(windows)
}

/// Why figures are missing.
fn notes(figures: &Figures, (width, height): (u32, u32), placed: Result<Windows, String>) -> Vec<String> {
    let mut notes = Vec::new();
    let borders = figures.borders.or(figures.row_borders);
    match placed {
        Err(why) => {
            notes.push(format!("has no figure for borders, and its seam is compared with the whole grid: {why}"));
        }
        Ok(_) if borders.is_none() => {
            notes.push("has no figure for borders: it is a single window, or flat".to_owned());
        }
        Ok(_) => {}
    }
    if figures.seam.is_none() {
        notes.push("has no figure for the seam: it is flat, or too narrow to compare anything with".to_owned());
    }
    if figures.intra_lpips.is_none() {
        notes.push(format!("has no Intra-LPIPS: two squares of 512 do not fit in {width}x{height}"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_where_the_text_says() {
        let geometry = Geometry::default();
        let made = |stride| Some(Made { width: 1024, height: 512, stride, loop_closure: true, seamless: false });
        let windows = |stride, loop_closure| Ok(Windows { stride, loop_closure, seamless: false });
        assert_eq!(place(geometry, (1024, 512), made(8), Some(32)), windows(8, true));
        assert_eq!(place(geometry, (1024, 512), None, Some(32)), windows(32, false));
        for (size, made, stride, why) in [
            ((1024, 512), None, None, "`--stride`"),
            ((1000, 512), None, Some(16), "1000 is not a multiple of 128"),
            ((1024, 256), None, Some(16), "256 is less than the window of 512 pixels"),
            ((512, 512), made(16), Some(16), "of a picture of 1024x512"),
        ] {
            let error = place(geometry, size, made, stride).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
