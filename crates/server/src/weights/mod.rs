//! `syncdiffusion weights`: fetches models and checks them.
//!
//! What always holds: an interrupted fetch can be resumed, and leaves nothing that looks complete. Progress and
//! complaints go to stderr, results to stdout.

mod fetch;
mod perceptual;
mod progress;
mod verify;

use std::process::ExitCode;

use crate::config::Weights;

pub(crate) async fn run(weights: Weights) -> anyhow::Result<ExitCode> {
    match weights {
        Weights::Fetch(flags) => fetch::run(&flags).await,
        Weights::Verify(flags) => verify::run(&flags),
        Weights::Perceptual(flags) => perceptual::run(&flags).await,
    }
}
