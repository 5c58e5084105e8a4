//! A whole model: all the networks of one bundle.

use serde::Deserialize;

use crate::ddim::Ddim;
use crate::load::{Bundle, Error, Result};
use crate::lpips::Lpips;
use crate::placement::Placement;
use crate::text_encoder::TextEncoder;
use crate::tokenizer::Tokenizer;
use crate::unet::UNet;
use crate::vae::Decoder;

/// The networks of Stable Diffusion 2, and the perceptual one beside them.
pub struct Sd2 {
    /// Text to token ids.
    pub tokenizer: Tokenizer,
    /// Token ids to embeddings.
    pub text_encoder: TextEncoder,
    /// Latents to the prediction.
    pub unet: UNet,
    /// Latents to pictures.
    pub decoder: Decoder,
    /// The noise schedule.
    pub ddim: Ddim,
    /// The perceptual distance.
    pub lpips: Lpips,
    /// Where all of it lives and computes.
    pub placement: Placement,
}

/// What the geometry of panoramas depends on. Cheap to read: no weights are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Side of a window, in latents.
    pub window: i64,
    /// Pixels per latent, along each axis.
    pub factor: i64,
}

impl Geometry {
    /// Reads what it needs of the configurations of a bundle.
    ///
    /// # Errors
    /// If they cannot be read. That they are complete is checked when the model is loaded.
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
    /// Loads all of a bundle.
    ///
    /// # Errors
    /// If a file is missing, malformed or asks for what this crate does not do, or if the parts do not fit each other.
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        // Small files first: what is wrong with them is told before gigabytes are read.
        let ddim = Ddim::load(bundle)?;
        let tokenizer = Tokenizer::load(bundle)?;
        let lpips = Lpips::load(bundle, placement)?;
        let decoder = Decoder::load(bundle, placement)?;
        let text_encoder = TextEncoder::load(bundle, placement)?;
        let unet = UNet::load(bundle, placement)?;
        let mut problems = Vec::new();
        let mut fit = |what: &str, a: i64, b: i64| {
            if a != b {
                problems.push(format!("{what}: `{a}` and `{b}`"));
            }
        };
        fit("width of the text encoder and of the UNet's cross-attention", text_encoder.width, unet.text_width);
        fit("channels of the UNet and of the decoder", unet.channels, decoder.channels);
        fit("length of the tokenizer and of the text encoder", tokenizer.length as i64, text_encoder.length);
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
