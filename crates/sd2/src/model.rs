//! A whole model: all networks of one bundle.

use std::sync::PoisonError;

use geometry::Geometry;
use serde::Deserialize;
use serde_json::Value;
use tch::Kind;

use crate::ddim::Ddim;
use crate::load::bundle::Bundle;
use crate::load::error::{Error, Result};
use crate::load::problem;
use crate::load::single_file::SingleFile;
use crate::lpips::Lpips;
use crate::placement::Placement;
use crate::schedulers::{Multistep, Schedule, Scheduler};
use crate::text_encoder::TextEncoder;
use crate::tokenizer::Tokenizer;
use crate::unet::UNet;
use crate::vae::{Decoder, Encoder};

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
    /// The other schedulers, or why the file of the model does not make one.
    unipc: Result<Multistep>,
    dpmpp_2m: Result<Multistep>,
    /// The perceptual distance.
    pub lpips: Lpips,
    /// Device and dtypes of all of it.
    pub placement: Placement,
    /// What was concluded or left out while it was loaded, in words for a log.
    pub notes: Vec<String>,
    /// Weights that hold numbers that are not finite.
    pub damaged: Vec<String>,
    bundle: Bundle,
}

/// Reads what the geometry of panoramas depends on of the configurations of a bundle. Weights are not opened.
///
/// # Errors
/// If they cannot be read. Whether they are supported is checked when the model is loaded.
pub fn read_geometry(bundle: &Bundle) -> Result<Geometry> {
    #[derive(Deserialize)]
    struct UNet {
        #[serde(default)]
        sample_size: Value,
    }
    #[derive(Deserialize)]
    struct Vae {
        block_out_channels: Vec<u32>,
    }
    bundle.check_family()?;
    let unet: UNet = parse(bundle, "unet/config.json")?;
    let vae: Vae = parse(bundle, "vae/config.json")?;
    let halvings = vae.block_out_channels.len().clamp(1, 16) - 1;
    let sides = unet.sample_size.as_array().cloned().unwrap_or_else(|| vec![unet.sample_size.clone()]);
    let side = sides.first().and_then(Value::as_u64).and_then(|side| u32::try_from(side).ok());
    let window = side.ok_or_else(|| {
        let problem = match &unet.sample_size {
            Value::Null => {
                "has no `sample_size`, the side of a window in latents: 64 for models of 512 pixels".to_owned()
            }
            other => format!("has the `sample_size` `{other}`, which is not a whole number"),
        };
        Error::File { file: "unet/config.json".to_owned(), problem }
    })?;
    Ok(Geometry { window, vae_factor: 1 << halvings })
}

fn parse<T: for<'a> Deserialize<'a>>(bundle: &Bundle, file: &str) -> Result<T> {
    problem::json(file, &bundle.read(file)?)
}

impl Sd2 {
    /// Loads all parts of a bundle.
    ///
    /// # Errors
    /// If a file is missing, malformed or asks for something unsupported, or if the parts do not match each other.
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        if !bundle.is_headers_only() {
            bundle.settle(placement)?;
        }
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
        if !problems.is_empty() {
            return Err(Error::Misfit { problems });
        }
        let notes = notes(bundle, &ddim, &tokenizer)?;
        let damaged = bundle.damaged().lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let [unipc, dpmpp_2m] =
            [Scheduler::UniPc, Scheduler::DpmPp2m].map(|scheduler| Multistep::load(bundle, &ddim, scheduler));
        let bundle = bundle.clone();
        Ok(Self {
            tokenizer,
            text_encoder,
            unet,
            decoder,
            ddim,
            unipc,
            dpmpp_2m,
            lpips,
            placement,
            notes,
            damaged,
            bundle,
        })
    }

    /// The steps of a picture by a scheduler, `n` of them.
    ///
    /// # Errors
    /// If the scheduler file of the model asks for what that scheduler does not support here.
    pub fn schedule(&self, scheduler: Scheduler, n: u32) -> std::result::Result<Schedule, &Error> {
        match scheduler {
            Scheduler::Ddim => Ok(Schedule { steps: self.ddim.schedule(n), solver: None }),
            Scheduler::UniPc => self.unipc.as_ref().map(|unipc| unipc.schedule(n)),
            Scheduler::DpmPp2m => self.dpmpp_2m.as_ref().map(|dpmpp| dpmpp.schedule(n)),
        }
    }

    /// Looks whether a bundle can be loaded, without reading its tensors: names and shapes are compared.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn check(bundle: &Bundle) -> Result<Geometry> {
        let geometry = read_geometry(bundle)?;
        // The scaled weights of a stream would take memory.
        let placement = Placement { stream_exponent: 0, ..Placement::of_gpu_on_cpu(Kind::Half) };
        Self::load(&bundle.headers_only(), placement).map(|_| geometry)
    }

    /// Decoder and perceptual network once more, in fp32: for numbers that leave the range of another dtype.
    ///
    /// # Errors
    /// If the files have gone since.
    pub fn pictures_in_f32(&self) -> Result<(Decoder, Lpips)> {
        let placement = Placement { picture_kind: Kind::Float, ..self.placement };
        Ok((Decoder::load(&self.bundle, placement)?, Lpips::load(&self.bundle, placement)?))
    }

    /// The encoder of its VAE, which few panoramas need.
    ///
    /// # Errors
    /// If the model has none, or if the files have gone since.
    pub fn load_encoder(&self) -> Result<Encoder> {
        Encoder::load(&self.bundle, self.placement)
    }

    /// Why the encoder of its VAE cannot be loaded, if it cannot: names and shapes are compared.
    pub fn no_encoder(&self) -> Option<Error> {
        Encoder::load(&self.bundle.headers_only(), Placement::of_gpu_on_cpu(Kind::Float)).err()
    }

    /// The geometry of its panoramas.
    pub fn geometry(&self) -> Geometry {
        Geometry { window: self.unet.sample_size as u32, vae_factor: self.decoder.factor as u32 }
    }
}

/// What was concluded or left out.
fn notes(bundle: &Bundle, ddim: &Ddim, tokenizer: &Tokenizer) -> Result<Vec<String>> {
    let mut notes: Vec<String> = bundle.single().map(SingleFile::conclusions).into_iter().collect();
    if !ddim.left_out.is_empty() {
        notes.push(format!(
            "`scheduler/scheduler_config.json`: these keys are of other samplers and change nothing for DDIM: `{}`",
            ddim.left_out.join("`, `")
        ));
    }
    notes.extend(tokenizer.notes.iter().cloned());
    for lora in bundle.loras() {
        notes.extend(lora.unused()?);
    }
    Ok(notes)
}
