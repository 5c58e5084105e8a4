//! Flags of `evaluate`.

use std::path::PathBuf;

use clap::Args;

use super::worker::WorkerArgs;

#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    /// Pictures (PNG, JPEG or WebP), and folders of them
    #[arg(required = true, value_name = "DIR|FILE")]
    pub(crate) paths: Vec<PathBuf>,
    /// Distance of the windows, in latents, of pictures whose text does not tell it; `generate` and `serve` write it
    /// into theirs
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) stride: Option<u32>,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
}
