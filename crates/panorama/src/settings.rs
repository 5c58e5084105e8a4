//! What a panorama is made from.

use geometry::{Ends, Geometry, is_synchronised};
use sd2::schedulers::Scheduler;

/// How windows are averaged where they overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blend {
    /// All count the same, as in the original.
    #[default]
    Even,
    /// They count less towards their borders.
    Smooth,
}

/// Which windows are synchronised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// All but the anchor, as in the original.
    #[default]
    Windows,
    /// As many as fit side by side, elsewhere in each step.
    Canvas,
}

/// The parameters of one panorama, under the names of the original; then what the original does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What the picture shows.
    pub prompt: String,
    /// What guidance leads away from.
    pub negative_prompt: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Scale of classifier-free guidance.
    pub guidance_scale: f64,
    /// Step size of the synchronisation at the first step.
    pub sync_weight: f64,
    /// Factor by which it shrinks from one step to the next.
    pub sync_decay_rate: f64,
    /// Steps from one that synchronises to the next.
    pub sync_freq: u64,
    /// Number of steps at the start in which it synchronises at all.
    pub sync_threshold: u32,
    /// Number of steps.
    pub num_inference_steps: u32,
    /// Distance between neighbouring windows, in latents.
    pub stride: u32,
    /// Seed of the starting noise.
    pub seed: u64,
    /// Adds windows that wrap from the right edge to the left one.
    pub loop_closure: bool,
    /// How windows are averaged.
    pub blend: Blend,
    /// Draws a ring: windows go round, and each end is decoded beside the other.
    pub seamless: bool,
    /// Which windows are synchronised.
    pub sync_mode: SyncMode,
    /// How latents are stepped. DDIM steps window by window, as the original; the others step the whole canvas.
    pub scheduler: Scheduler,
}

/// A parameter that a model cannot make a panorama from.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {message}")]
pub struct Invalid {
    /// The parameter.
    pub field: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl Settings {
    /// Checks what the algorithm itself cannot do without. Bounds and taste are the business of whoever takes requests.
    pub(crate) fn check(&self, geometry: Geometry) -> Result<(), Invalid> {
        let (factor, window) = (geometry.vae_factor, geometry.window_pixels());
        let invalid = |field, message| Err(Invalid { field, message });
        for (field, size) in [("width", self.width), ("height", self.height)] {
            if !size.is_multiple_of(factor) || u64::from(size) < window {
                return invalid(field, format!("is {size}, not a multiple of {factor} of at least {window}"));
            }
        }
        if self.stride < 1 {
            return invalid("stride", format!("is {}, not at least 1", self.stride));
        }
        if self.sync_freq < 1 {
            return invalid("sync_freq", "is 0, not at least 1".to_owned());
        }
        if self.num_inference_steps < 1 {
            return invalid("num_inference_steps", "is 0, not at least 1".to_owned());
        }
        if self.loop_closure && u64::from(self.height) != window {
            return invalid("loop_closure", format!("needs a height of one window, {window}"));
        }
        if self.seamless && self.loop_closure {
            return invalid("seamless", "cannot be used with `loop_closure`".to_owned());
        }
        Ok(())
    }

    /// What windows do at the ends.
    pub(crate) fn ends(&self) -> Ends {
        Ends::of(self.loop_closure, self.seamless)
    }

    /// The step size of the synchronisation in step `i`, from 0; 0.0 where nothing moves.
    pub(crate) fn step_size(&self, i: usize) -> f64 {
        if is_synchronised(i as u64, self.sync_freq, self.sync_threshold) {
            self.sync_weight * self.sync_decay_rate.powi(i as i32)
        } else {
            0.0
        }
    }
}
