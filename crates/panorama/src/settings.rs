//! What a panorama is made from.

use sd2::Geometry;

/// The parameters of one panorama, under the names of the original.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What the picture shows.
    pub prompt: String,
    /// What guidance leads away from.
    pub negative_prompt: String,
    /// Width in pixels.
    pub width: i64,
    /// Height in pixels.
    pub height: i64,
    /// Scale of classifier-free guidance.
    pub guidance_scale: f64,
    /// Step size of the synchronisation at the first step.
    pub sync_weight: f64,
    /// Factor by which it shrinks from one step to the next.
    pub sync_decay_rate: f64,
    /// Synchronise every so many steps.
    pub sync_freq: u64,
    /// Synchronise in the first so many steps only.
    pub sync_threshold: u32,
    /// Number of DDIM steps.
    pub num_inference_steps: u32,
    /// Distance between neighbouring windows, in latents.
    pub stride: i64,
    /// Seed of the starting noise.
    pub seed: u64,
    /// Adds windows that wrap from the right edge to the left one.
    pub loop_closure: bool,
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
    pub(crate) fn check(&self, Geometry { window, factor }: Geometry) -> Result<(), Invalid> {
        let invalid = |field, message| Err(Invalid { field, message });
        for (field, size) in [("width", self.width), ("height", self.height)] {
            if size % factor != 0 || size / factor < window {
                return invalid(
                    field,
                    format!("is {size}, not a multiple of {factor} of at least {}", window * factor),
                );
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
        if self.loop_closure && self.height != window * factor {
            return invalid("loop_closure", format!("needs a height of one window, {}", window * factor));
        }
        Ok(())
    }

    /// The step size of the synchronisation in step `i` from 0, or `None` if there is none.
    pub(crate) fn sync_weight(&self, i: usize) -> Option<f64> {
        let weight = self.sync_weight * self.sync_decay_rate.powi(i as i32);
        let due = (i as u64 + 1).is_multiple_of(self.sync_freq) && i < self.sync_threshold as usize;
        (due && weight != 0.0).then_some(weight)
    }
}
