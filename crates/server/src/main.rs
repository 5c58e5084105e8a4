//! The binary `syncdiffusion`: HTTP, command line and page.
//!
//! `cli` has the commands, `config` their flags and the environment. `serve` runs the server whose routes are in
//! `http`; `generate` makes one picture without a server; `evaluate` measures pictures; `weights` fetches models and
//! checks them; `doctor` checks the setup. `telemetry` is log, metrics and traces. What happens to a prediction is
//! decided in the crate `prediction`.

mod activity;
mod cli;
mod config;
mod connections;
mod doctor;
mod documents;
mod evaluate;
mod generate;
mod half_closed;
mod http;
mod openapi;
mod page;
mod serve;
mod signals;
mod store;
mod telemetry;
mod tokens;
mod units;
mod variables;
mod weights;

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let Cli { telemetry, command } = variables::parse(Cli::command());
    let quiet = !matches!(command, Command::Serve(_));
    // The one provider that is built; a second call would only find it set.
    prediction::install_crypto();
    let telemetry = match telemetry::start(&telemetry, if quiet { "warn" } else { "info" }) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            telemetry::say(format!("error: the log cannot be written: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let done = match command {
        Command::Serve(serve) => run(serve::run(*serve)),
        Command::Generate(generate) => run(generate::run(*generate)),
        Command::Evaluate(evaluate) => run(evaluate::run(*evaluate)),
        Command::Weights(weights) => run(weights::run(weights)),
        Command::Doctor(doctor) => run(doctor::run(*doctor)),
        Command::Documents { root } => documents::write(&root).map(|()| ExitCode::SUCCESS),
    };
    let code = done.unwrap_or_else(|error| {
        telemetry::say(format!("error: {error:#}"));
        ExitCode::FAILURE
    });
    drop(telemetry);
    code
}

/// Runs a future on a runtime of its own, and does not wait for threads that are still busy at its end.
fn run<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(future);
    runtime.shutdown_background();
    done
}
