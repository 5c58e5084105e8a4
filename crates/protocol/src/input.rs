//! The 13 parameters of a panorama, validated.

use serde::{Deserialize, Serialize};

/// The parameters of a panorama. Names and order are those of the hosted model; the bounds are checked where JSON
/// becomes an `Input`, not here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Describes the picture.
    pub prompt: String,
    /// Describes what guidance avoids.
    pub negative_prompt: String,
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// Scale of classifier-free guidance; 1 turns it off.
    pub guidance_scale: f64,
    /// Step size of the synchronisation at the first step.
    pub sync_weight: f64,
    /// Factor by which the step size decreases from one step to the next.
    pub sync_decay_rate: f64,
    /// Interval between synchronised steps; at least 1.
    pub sync_freq: u64,
    /// Number of steps, from the first, that may be synchronised.
    pub sync_threshold: u32,
    /// Number of DDIM steps.
    pub num_inference_steps: u32,
    /// Distance between neighbouring windows, in latents.
    pub stride: u32,
    /// Seed of the starting noise.
    pub seed: u64,
    /// Adds windows that wrap from the right edge to the left one.
    pub loop_closure: bool,
}
