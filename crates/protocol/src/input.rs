//! The thirteen parameters of a panorama, already valid.

use serde::{Deserialize, Serialize};

/// What a panorama is made from. The names, order and defaults are those of the hosted model; the bounds are checked
/// where JSON becomes an `Input`, not here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What the picture shows.
    pub prompt: String,
    /// What guidance leads away from.
    pub negative_prompt: String,
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// Scale of classifier-free guidance; 1 is none.
    pub guidance_scale: f64,
    /// Step size of the synchronisation at the first step.
    pub sync_weight: f64,
    /// Factor by which the step size shrinks from one step to the next.
    pub sync_decay_rate: f64,
    /// Synchronise every so many steps; at least 1.
    pub sync_freq: u64,
    /// Synchronise in the first so many steps only.
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
