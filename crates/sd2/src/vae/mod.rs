//! The VAE: pictures to latents and latents to pictures, by diffusers' `AutoencoderKL`.
//!
//! Few panoramas begin from a picture, so the encoder is loaded apart from the decoder, which all need.

mod attention;
mod decoder;
mod decoding;
mod encoder;
mod settings;

pub use self::decoder::Decoder;
pub use self::decoding::{Decoded, Decoding};
pub use self::encoder::Encoder;
