//! The binary `syncdiffusion`: HTTP, command line and page.
//!
//! `config` reads flags and environment, once. `serve` runs the server whose routes are in `http`; `generate` makes one
//! picture without a server; `weights` fetches models and says which one a name means; `doctor` looks whether all is there.
//! `telemetry` is log, figures and traces. What happens to a prediction is not decided here but in the crate `prediction`.

mod config;
mod connections;
mod doctor;
mod documents;
mod generate;
mod http;
mod openapi;
mod serve;
mod telemetry;
mod weights;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let config = config::Config::parse();
    let quiet = !matches!(config.command, config::Command::Serve(_));
    // The one provider that is built; a second call would only find it set.
    prediction::install_crypto();
    let _telling = telemetry::start(&config.telemetry, if quiet { "warn" } else { "info" });
    let done = match config.command {
        config::Command::Serve(serve) => run(serve::run(*serve)).map(|()| ExitCode::SUCCESS),
        config::Command::Generate(generate) => run(generate::run(*generate)),
        config::Command::Weights(weights) => run(weights::run(weights)),
        config::Command::Doctor(doctor) => run(doctor::run(*doctor)),
        config::Command::Documents { root } => documents::write(&root).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs a future on a runtime of its own, and does not wait for threads that are still busy at its end.
fn run<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(future);
    runtime.shutdown_background();
    done
}
