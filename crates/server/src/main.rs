//! The binary `syncdiffusion`: HTTP, command line and page.
//!
//! `config` reads flags and environment, once. `serve` runs the server whose routes are in `http`; `generate` makes one
//! picture without a server; `weights` fetches models and says which one a name means. What happens to a prediction is not decided here but in the crate `prediction`.

mod config;
mod generate;
mod http;
mod openapi;
mod serve;
mod weights;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let config = config::Config::parse();
    let quiet = matches!(config.command, config::Command::Generate(_) | config::Command::Weights(_));
    let filter = config.log.as_deref().or(config.cog_log_level.as_deref());
    log(filter.unwrap_or(if quiet { "warn" } else { "info" }), config.log_format);
    // The one provider that is built; a second call would only find it set.
    prediction::install_crypto();
    let done = match config.command {
        config::Command::Serve(serve) => run(serve::run(*serve)).map(|()| ExitCode::SUCCESS),
        config::Command::Generate(generate) => run(generate::run(*generate)),
        config::Command::Weights(weights) => run(weights::run(weights)),
        config::Command::Openapi => {
            print!("{}", openapi::yaml());
            Ok(ExitCode::SUCCESS)
        }
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

/// Sends logs to stderr.
fn log(filter: &str, format: config::LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match format {
        config::LogFormat::Text => registry.with(lines.with_target(false)).init(),
        config::LogFormat::Json => registry.with(lines.json()).init(),
    }
}
