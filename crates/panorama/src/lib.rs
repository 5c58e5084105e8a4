//! SyncDiffusion: coherent panoramas by synchronised joint diffusions.
//!
//! Lee et al., "SyncDiffusion: Coherent Montage via Synchronized Joint Diffusions", arXiv 2306.05178, exactly as the
//! authors' code computes it, its quirks included. A panorama is a bag of overlapping [windows]: in each step every
//! window takes a DDIM step of its own and the results are averaged where they overlap. In the first steps each window
//! is moved, before that, so that the picture it is heading for looks more like the one of the window in the middle,
//! the *anchor*.
//!
//! [`Panorama`] is one job as a state machine: it hands out [`Task`]s of one [`Kind`] and takes their results back.
//! [`Engine`] owns the networks and computes batches of tasks, which may belong to different panoramas.
//! [`run`] drives a single panorama to its end.
//!
//! The schedule does the least work that gives the same picture: the anchor is forwarded once, nothing is synchronised
//! that would not move, and a guidance branch without influence is not computed.

mod engine;
mod panorama;
mod settings;
mod threads;
pub mod windows;

pub use engine::{Engine, Limits, Picture};
pub use panorama::{Kind, Outcome, Panorama, Progress, Task, Work};
pub use settings::{Invalid, Settings};

use std::ops::ControlFlow;

/// Drives one panorama to its end. After each batch `progress` is told how far it is and may stop it.
///
/// # Errors
/// If the settings do not fit the model.
///
/// # Panics
/// If libtorch fails; see [`sd2`].
pub fn run(
    engine: &mut Engine,
    settings: &Settings,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<(Picture, Work)>, Invalid> {
    let mut panorama = engine.begin(settings)?;
    while let Some(kind) = panorama.kind() {
        let tasks = panorama.take(engine.limits.of(kind));
        let outcomes = engine.compute(kind, &tasks);
        for (task, outcome) in std::iter::zip(tasks, outcomes) {
            if let Some(picture) = panorama.put(task, outcome) {
                return Ok(Some((picture, panorama.work())));
            }
        }
        if progress(panorama.progress()).is_break() {
            return Ok(None);
        }
    }
    Ok(None)
}
