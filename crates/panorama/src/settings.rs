//! What a panorama is made from.

use geometry::{Ends, Geometry, Placed, is_synchronised, kept_steps};
use sd2::schedulers::Scheduler;

use crate::sources::Sources;

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
    /// What the panorama follows beside its prompt.
    pub sources: Sources,
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
    /// Returns the place of the picture that becomes part of the panorama.
    pub(crate) fn check(&self, geometry: Geometry) -> Result<Option<Placed>, Invalid> {
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
        self.check_sources(geometry)
    }

    /// Checks what it follows beside its prompt; where its picture lies.
    fn check_sources(&self, geometry: Geometry) -> Result<Option<Placed>, Invalid> {
        let Sources { prompts, image, image_left, strength, .. } = &self.sources;
        let invalid = |field, message: &str| Err(Invalid { field, message: message.to_owned() });
        if prompts.len() == 1 {
            return invalid("prompts", "has one text, which is what `prompt` is for; give two or more, or none");
        }
        if !(0.0..=1.0).contains(strength) {
            return invalid("strength", &format!("is {strength}, not from 0 to 1"));
        }
        let Some(image) = image else {
            return match image_left {
                Some(_) => invalid("image_left", "needs an `image`, whose place it is"),
                None if *strength > 0.0 => invalid("strength", "needs an `image`, which is redrawn"),
                None => Ok(None),
            };
        };
        let canvas = (self.width, self.height);
        let placed = geometry
            .place((image.width, image.height), canvas, *image_left)
            .map_err(|why| Invalid { field: why.field(), message: why.to_string() })?;
        let steps = self.num_inference_steps;
        if placed.width == self.width && kept_steps(steps, *strength) == steps {
            return invalid(
                "image",
                "fills the whole panorama and is kept in every step, so nothing is drawn; choose a larger `width`, or a \
                 `strength` of at least one step",
            );
        }
        Ok(Some(placed))
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
