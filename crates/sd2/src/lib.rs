//! The networks of Stable Diffusion 2 on libtorch: tensors in, tensors out.
//!
//! A [`Bundle`] is a model: in the diffusers folder layout, or a checkpoint in one file. [`Sd2`] loads all of it; its
//! parts also work alone:
//!
//! | module | what | diffusers' or transformers' name |
//! |---|---|---|
//! | [`tokenizer`] | text to token ids | `CLIPTokenizer` |
//! | [`text_encoder`] | token ids to embeddings | `CLIPTextModel` |
//! | [`unet`] | latents to the model's prediction | `UNet2DConditionModel` |
//! | [`ddim`] | the prediction to the next latents | `DDIMScheduler` |
//! | [`schedulers`] | the same, in fewer steps | `UniPCMultistepScheduler`, `DPMSolverMultistepScheduler` |
//! | [`vae`] | latents to pictures, pictures to latents | `AutoencoderKL` |
//! | [`lpips`] | the perceptual distance of two pictures | `lpips.LPIPS(net="vgg")` |
//!
//! Below them are `load` (files, configurations, weights), `nn` (shared layers and the [`Tape`]) and `cpu` (kernels
//! that replace libtorch's on a CPU; the networks read without them).
//!
//! Everything is built from the `config.json` files. A key that this crate does not support is an error that names it.
//! Weights never require gradients: only gradients of inputs are computed. For them a network has a `*_recorded`
//! variant of its forward pass, which returns the [`Tape`] that its backward pass consumes.
//!
//! A failure inside libtorch, such as running out of memory, is a panic, as in `tch`: so the networks read like their
//! formulas, and their caller puts one `catch_unwind` around a batch. Everything that reads files returns [`Error`].

mod cpu;
pub mod ddim;
mod layout;
mod load;
pub mod lpips;
mod model;
mod nn;
mod placement;
mod prediction;
pub mod schedulers;
#[cfg(test)]
mod testing;
pub mod text_encoder;
pub mod tokenizer;
pub mod unet;
pub mod vae;
mod words;

pub use load::{Bundle, Error, Result, Said};
pub use model::{Sd2, read_geometry};
pub use nn::tape::{Checkpointing, Tape};
pub use placement::{Placement, Upsampling};
