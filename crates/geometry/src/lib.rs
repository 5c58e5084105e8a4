//! Integers that both towers agree on: which strides and sizes a model can draw, where the windows of a panorama lie,
//! and what a job costs. The service validates and estimates by them, the worker computes by them.
//!
//! Nothing here knows tensors or JSON, and the crate has no dependencies.

mod along;
mod canvas;
mod cost;
mod place;
mod sizes;
mod windows;

pub use along::Nearest;
pub use cost::{Prices, Tasks, is_synchronised, synchronised_steps};
pub use place::{Misplaced, Placed, kept_steps};
pub use sizes::{Error, Geometry};
pub use windows::{Ends, Layout};
