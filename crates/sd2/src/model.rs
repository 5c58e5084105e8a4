//! A whole model: all networks of one bundle.

use serde::Deserialize;

use crate::ddim::Ddim;
use crate::load::{Bundle, Error, Result};
use crate::lpips::Lpips;
use crate::placement::Placement;
use crate::text_encoder::TextEncoder;
use crate::tokenizer::Tokenizer;
use crate::unet::UNet;
use crate::vae::Decoder;

/// The networks of Stable Diffusion 2, and the perceptual network.
pub struct Sd2 {
    /// Text to token ids.
    pub tokenizer: Tokenizer,
    /// Token ids to embeddings.
    pub text_encoder: TextEncoder,
    /// Latents, a timestep and a text to the prediction.
    pub unet: UNet,
    /// Latents to pictures.
    pub decoder: Decoder,
    /// The noise schedule.
    pub ddim: Ddim,
    /// The perceptual distance.
    pub lpips: Lpips,
    /// Device and dtypes of all of it.
    pub placement: Placement,
}

/// What the geometry of panoramas depends on. Cheap to read: weights are not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Side of a window, in latents.
    pub window: i64,
    /// Pixels per latent, along each axis.
    pub factor: i64,
}

impl Geometry {
    /// Reads it from the configurations of a bundle.
    ///
    /// # Errors
    /// If they cannot be read. Whether they are supported is checked when the model is loaded.
    pub fn read(bundle: &Bundle) -> Result<Self> {
        #[derive(Deserialize)]
        struct UNet {
            sample_size: u32,
        }
        #[derive(Deserialize)]
        struct Vae {
            block_out_channels: Vec<u32>,
        }
        let unet: UNet = parse(bundle, "unet/config.json")?;
        let vae: Vae = parse(bundle, "vae/config.json")?;
        let halvings = vae.block_out_channels.len().clamp(1, 16) - 1;
        Ok(Self { window: i64::from(unet.sample_size), factor: 1 << halvings })
    }
}

fn parse<T: for<'a> Deserialize<'a>>(bundle: &Bundle, file: &str) -> Result<T> {
    serde_json::from_slice(&bundle.read(file)?)
        .map_err(|e| Error::Config { file: file.to_owned(), problems: vec![e.to_string()] })
}

impl Sd2 {
    /// Loads all parts of a bundle.
    ///
    /// # Errors
    /// If a file is missing, malformed or asks for something unsupported, or if the parts do not match each other.
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        // Small files first, so that their errors are reported before gigabytes are read.
        let ddim = Ddim::load(bundle)?;
        let tokenizer = Tokenizer::load(bundle)?;
        let lpips = Lpips::load(bundle, placement)?;
        let decoder = Decoder::load(bundle, placement)?;
        let text_encoder = TextEncoder::load(bundle, placement)?;
        let unet = UNet::load(bundle, placement)?;
        let mut problems = Vec::new();
        let mut match_up = |what: &str, a: i64, b: i64| {
            if a != b {
                problems.push(format!("{what} differ: `{a}` and `{b}`"));
            }
        };
        match_up(
            "the width of the text encoder and that of the UNet's cross-attention",
            text_encoder.width,
            unet.text_width,
        );
        match_up("the channels of the UNet and those of the decoder", unet.channels, decoder.channels);
        match_up(
            "the length of the tokenizer and that of the text encoder",
            tokenizer.length as i64,
            text_encoder.length,
        );
        if problems.is_empty() {
            Ok(Self { tokenizer, text_encoder, unet, decoder, ddim, lpips, placement })
        } else {
            Err(Error::Config { file: "model_index.json".to_owned(), problems })
        }
    }

    /// The geometry of its panoramas.
    pub fn geometry(&self) -> Geometry {
        Geometry { window: self.unet.sample_size, factor: self.decoder.factor }
    }
}
