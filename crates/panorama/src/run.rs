//! The simplest driver of a panorama.

use std::ops::ControlFlow;

use crate::engine::Engine;
use crate::limits::Limits;
use crate::panorama::{Progress, Work};
use crate::picture::Picture;
use crate::settings::{Invalid, Settings};

/// Runs one panorama to its end. After each batch `progress` learns how far it is and may stop it.
///
/// # Errors
/// If the settings do not fit the model.
///
/// # Panics
/// If libtorch fails, see [`sd2`], and if the numbers of a network are not finite.
pub fn run(
    engine: &mut Engine,
    settings: &Settings,
    limits: Limits,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<(Picture, Work)>, Invalid> {
    let mut panorama = engine.begin(settings)?;
    while let Some(stage) = panorama.stage() {
        let tasks = panorama.take(limits.next(stage, panorama.waiting()));
        for outcome in engine.compute(&tasks, limits) {
            if let Some(picture) = panorama.put(outcome) {
                return Ok(Some((picture, panorama.work())));
            }
        }
        if progress(panorama.progress()).is_break() {
            return Ok(None);
        }
    }
    Ok(None)
}
