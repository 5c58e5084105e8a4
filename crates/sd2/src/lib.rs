//! The networks of Stable Diffusion 2.
