//! Measures what only a GPU can tell: speed, exactness and the assumptions about it. `scripts/gpu/run.sh` calls it.
//!
//! Every measurement is a line of JSON, printed and added to the file that `--json` names; `scripts/gpu/table.py` makes
//! a table of them. With `--device cpu` everything runs on a CPU, so that tests hold it.

mod check;
mod job;
mod micro;
mod place;
mod record;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::record::Records;

/// Measures a GPU.
#[derive(Parser)]
struct Options {
    /// File to which the lines are added.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Networks, gradients and pictures against the fixtures.
    Check(check::Options),
    /// The same job several times.
    Job(job::Options),
    /// Single operations, in the shapes of Stable Diffusion 2.
    Micro(micro::Options),
}

fn main() -> Result<()> {
    let options = Options::parse();
    let records = Records::to(options.json)?;
    match options.command {
        Command::Check(options) => check::run(&options, &records),
        Command::Job(options) => job::run(&options, &records),
        Command::Micro(options) => micro::run(&options, &records),
    }
}
