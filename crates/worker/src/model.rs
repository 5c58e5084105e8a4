//! Which model is loaded, and what is added to it.

use std::path::PathBuf;
use std::str::FromStr;

use sd2::ddim::Prediction;
use sd2::tokenizer::Words;
use sd2::{Bundle, Said};

use crate::demo;

/// The flags about the model.
#[derive(clap::Args)]
pub(crate) struct ModelOptions {
    /// `demo`, a diffusers folder of Stable Diffusion 1 or 2 with `perceptual/` beside its parts, or a checkpoint in
    /// one `.safetensors` file.
    #[arg(long, default_value = "demo")]
    pub(crate) model: String,
    /// Folder with the perceptual network, for a model that has none.
    #[arg(long)]
    perceptual: Option<PathBuf>,
    /// LoRA that is added to the weights, as `FILE` or `FILE:WEIGHT`.
    #[arg(long)]
    lora: Vec<LoraOption>,
    /// How texts are cut into words: `clip` or `hosted`.
    #[arg(long, default_value = "clip")]
    tokenizer: Words,
    /// What a checkpoint in one file predicts: `epsilon` or `v`.
    #[arg(long)]
    prediction_type: Option<Prediction>,
    /// Side of a window of a checkpoint in one file, in latents.
    #[arg(long)]
    window: Option<u32>,
    /// File that remembers the hashes of weights.
    #[arg(long)]
    hashes: Option<PathBuf>,
}

/// A LoRA and how much of it is added.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoraOption {
    file: PathBuf,
    weight: f64,
}

impl FromStr for LoraOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = || Self { file: text.into(), weight: 1.0 };
        let Some((file, weight)) = text.rsplit_once(':') else { return Ok(whole()) };
        match weight.trim().parse::<f64>() {
            Ok(weight) if weight.is_finite() => Ok(Self { file: file.into(), weight }),
            // A colon may be part of a name.
            _ if PathBuf::from(text).exists() => Ok(whole()),
            _ => Err(format!("`{weight}` is not the weight of a LoRA; write `FILE:0.8`")),
        }
    }
}

impl ModelOptions {
    /// Opens the model; its weights are not loaded yet.
    pub(crate) fn open(&self) -> anyhow::Result<Bundle> {
        let mut bundle = match self.model.as_str() {
            "demo" => demo::bundle(),
            path => {
                let said = Said { prediction: self.prediction_type, window: self.window.map(i64::from) };
                // The error names the file.
                Bundle::open_with(path, said)?
            }
        };
        if let Some(folder) = &self.perceptual {
            bundle = bundle.with_perceptual(folder.clone());
        }
        for LoraOption { file, weight } in &self.lora {
            bundle = bundle.with_lora(file.clone(), *weight)?;
        }
        Ok(bundle.with_words(self.tokenizer))
    }

    /// The version of its perceptual network alone.
    pub(crate) fn perceptual_version(&self, bundle: &Bundle) -> sd2::Result<String> {
        bundle.perceptual_fingerprint(self.hashes.as_deref())
    }

    /// The version of the model: a hash of all that pictures depend on.
    pub(crate) fn version(&self, bundle: &Bundle) -> sd2::Result<String> {
        bundle.fingerprint(self.hashes.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_has_a_weight() {
        let of = |text: &str| text.parse::<LoraOption>().map(|lora| (lora.file.display().to_string(), lora.weight));
        assert_eq!(of("a.safetensors"), Ok(("a.safetensors".to_owned(), 1.0)));
        assert_eq!(of("b/a.safetensors:-0.5"), Ok(("b/a.safetensors".to_owned(), -0.5)));
        assert!(of("a.safetensors:much").unwrap_err().contains("`much`"));
    }
}
