//! Flags for what is done with a model while it is loaded.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use weights::Home;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Worker")]
pub(crate) struct Loading {
    /// LoRA that is added to the weights: `FILE.safetensors`, or `FILE.safetensors:0.8` for less of it; several are
    /// separated by commas, or the flag is repeated
    #[arg(long, env = "SYNCDIFFUSION_LORA", value_name = "FILE[:WEIGHT]", value_delimiter = ',')]
    lora: Vec<String>,
    /// How prompts are cut into words: `clip`, or `hosted` as the hosted model does [default: `hosted` for the fetched
    /// `sd2`, `clip` for all others]
    #[arg(long, env = "SYNCDIFFUSION_TOKENIZER")]
    tokenizer: Option<Tokenizer>,
    /// What a checkpoint in one file predicts, if it does not say so itself: `epsilon` or `v`
    #[arg(long, env = "SYNCDIFFUSION_PREDICTION_TYPE")]
    prediction_type: Option<PredictionType>,
    /// Side of a window of a checkpoint in one file, in latents of 8 pixels [default: 64, or 96 for Stable Diffusion 2
    /// that predicts `v`]
    #[arg(long, env = "SYNCDIFFUSION_WINDOW", value_parser = clap::value_parser!(u32).range(8..=512))]
    window: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tokenizer {
    /// As transformers 5 does
    Clip,
    /// As transformers 4.28 without `ftfy` does
    Hosted,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PredictionType {
    /// The noise
    Epsilon,
    /// The velocity
    #[value(alias = "v_prediction")]
    V,
}

impl Loading {
    /// What a worker is started with. `hosted` is whether the model is the one whose original tokenizes so.
    pub(crate) fn arguments(&self, home: &Home, hosted: bool) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        for lora in self.lora.iter().filter(|lora| !lora.is_empty()) {
            add("--lora", lora.clone());
        }
        let tokenizer = self.tokenizer.unwrap_or(if hosted { Tokenizer::Hosted } else { Tokenizer::Clip });
        if matches!(tokenizer, Tokenizer::Hosted) {
            add("--tokenizer", "hosted".to_owned());
        }
        if let Some(prediction) = self.prediction_type {
            let name = if matches!(prediction, PredictionType::V) { "v" } else { "epsilon" };
            add("--prediction-type", name.to_owned());
        }
        if let Some(window) = self.window {
            add("--window", window.to_string());
        }
        let paths: [(&str, Option<PathBuf>); 2] = [("--perceptual", home.perceptual()), ("--hashes", home.hashes())];
        for (flag, path) in paths {
            if let Some(path) = path.as_ref().and_then(|path| path.to_str()) {
                add(flag, path.to_owned());
            }
        }
        arguments
    }
}
