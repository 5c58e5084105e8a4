//! The worker process: one per device, owns the models and advances its panoramas.
//!
//! It speaks the [`protocol`] on stdin and stdout; its stderr is log. Data flows one way: [`commands`] reads stdin on a
//! thread of its own, [`service`] holds the jobs and computes on the main thread, [`events`] writes stdout.

mod backoff;
mod commands;
mod cuda;
mod demo;
mod device;
mod doctor;
mod evaluate;
mod events;
mod failure;
mod memory;
mod model;
mod panoramas;
mod pending;
mod pictures;
mod prices;
mod schedule;
mod service;
mod settings;
mod warmup;

use std::num::NonZero;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use clap::Parser;
use panorama::{Engine, Preview};
use protocol::{Event, Model, Scheduler};
use sd2::{Sd2, schedulers};

use crate::device::{DeviceChoice, DtypeChoice};
use crate::events::Events;
use crate::memory::Budget;
use crate::model::ModelOptions;
use crate::service::Service;

/// Makes panoramas for a server that speaks to it on stdin and stdout.
#[derive(Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    model: ModelOptions,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// `auto`, `f32`, `bf16` or `f16`.
    #[arg(long, default_value = "auto")]
    dtype: DtypeChoice,
    /// Memory that the worker may take in all, in bytes or as `6GiB`; by default half of what is free beside the
    /// weights.
    #[arg(long)]
    memory_budget: Option<Budget>,
    /// Threads of the CPU; by default as many as there are processors.
    #[arg(long)]
    threads: Option<NonZero<usize>>,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Options {
    /// How many threads compute on a CPU.
    fn threads(&self) -> usize {
        self.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get)
    }
}

#[derive(clap::Subcommand)]
enum Command {
    /// Report what there is to compute with, and whether the model can be loaded, as one line of JSON, and exit.
    Doctor(ModelOptions),
    /// Load only the perceptual network, and evaluate pictures instead of drawing them.
    Evaluate,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // The server that passes these lines on adds the time.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    // A failure of libtorch is a panic that ends one job; where it is caught, the job is named.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(place, "{}", failure::message(panic.payload()));
    }));
    let options = Options::parse();
    if let Some(Command::Doctor(model)) = &options.command {
        println!("{}", doctor::report(model));
        return ExitCode::SUCCESS;
    }
    let events = Events::to_stdout();
    let done = match options.command {
        Some(Command::Evaluate) => {
            let Options { model, device, dtype, .. } = &options;
            evaluate::run(model, *device, *dtype, options.threads(), &events)
        }
        _ => run(&options, &events),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            events.send(&Event::LoadFailed { error: format!("{error:#}") });
            ExitCode::FAILURE
        }
    }
}

/// Loads the model and serves until stdin ends.
fn run(options: &Options, events: &Events) -> anyhow::Result<()> {
    let start = Instant::now();
    // Before anything else: commands that arrive while the model loads wait their turn.
    let commands = commands::read_stdin();
    let bundle = options.model.open()?;
    let placement = device::place(options.device, options.dtype)?;
    bundle.settle(placement)?;
    let geometry = sd2::read_geometry(&bundle)?;
    let model = Model {
        name: options.model.model.clone(),
        version: options.model.version(&bundle)?,
        window: geometry.window,
        vae_factor: geometry.vae_factor,
        device: device::name(placement.device),
        dtype: device::dtype_name(placement.kind).to_owned(),
    };
    events.send(&Event::Loading { model: model.clone() });
    let sd2 = Sd2::load(&bundle, placement)?;
    for note in &sd2.notes {
        tracing::info!("{note}");
    }
    if !sd2.damaged.is_empty() {
        tracing::warn!("numbers that are not finite are in {}", sd2.damaged.join(", "));
    }
    let unusable = unusable_schedulers(&sd2);
    let no_encoder = sd2.no_encoder().map(|error| panorama::without_encoder(&error).message);
    let mut engine = Engine::new(sd2, options.threads());
    let warm = warmup::run(&mut engine, options.memory_budget)?;
    events.send(&Event::Ready {
        model,
        load_seconds: start.elapsed().as_secs_f64(),
        peak_memory_bytes: memory::max_used(placement.device),
        jobs: warm.jobs,
        unusable,
        no_encoder,
    });
    let preview = Preview::unknown();
    Service::new(engine, warm, events, preview).serve(&commands)
}

/// The schedulers that the scheduler file of a model rules out, and why.
fn unusable_schedulers(sd2: &Sd2) -> Vec<(Scheduler, String)> {
    let schedulers =
        [(Scheduler::UniPc, schedulers::Scheduler::UniPc), (Scheduler::DpmPp2m, schedulers::Scheduler::DpmPp2m)];
    let why = |scheduler| sd2.schedule(scheduler, 1).err().map(|error| panorama::unusable(error).message);
    schedulers.into_iter().filter_map(|(name, scheduler)| Some((name, why(scheduler)?))).collect()
}
