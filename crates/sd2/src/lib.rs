//! The networks of Stable Diffusion 2, on libtorch: tensors in, tensors out.
//!
//! A [`Bundle`] is a model in the diffusers folder layout. [`Sd2`] loads all of it; its parts can be used alone:
//!
//! | module | what | diffusers' or transformers' name |
//! |---|---|---|
//! | [`tokenizer`] | text to token ids | `CLIPTokenizer` |
//! | [`text_encoder`] | token ids to embeddings | `CLIPTextModel` |
//! | [`unet`] | latents to the model's prediction | `UNet2DConditionModel` |
//! | [`ddim`] | the prediction to the next latents | `DDIMScheduler` |
//! | [`vae`] | latents to pictures | `AutoencoderKL` |
//! | [`lpips`] | the perceptual distance of two pictures | `lpips.LPIPS(net="vgg")` |
//!
//! Everything is built from the `config.json` files; what a configuration asks for and this crate does not do is an
//! error that names the key. Weights never require gradients: the only gradients anyone asks for are those of inputs.
//!
//! A failure inside libtorch (out of memory, say) is a panic, as in `tch`: the networks read like their formulas, and
//! who runs them puts one `catch_unwind` round a batch. Everything that reads files returns [`Error`].

mod cpu;
pub mod ddim;
mod layout;
mod load;
pub mod lpips;
mod model;
mod nn;
mod placement;
#[cfg(test)]
mod testing;
pub mod text_encoder;
pub mod tokenizer;
pub mod unet;
pub mod vae;

pub use load::{Bundle, Error, Result};
pub use model::{Geometry, Sd2};
pub use nn::tape::Kept;
pub use placement::Placement;
