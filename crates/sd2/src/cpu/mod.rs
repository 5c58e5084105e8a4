//! Kernels for feature maps in a CPU's memory.

pub(crate) mod lpips;
pub(crate) mod norm_silu;
mod numbers;
pub(crate) mod winograd;
