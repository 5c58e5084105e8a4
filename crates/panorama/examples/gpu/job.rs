//! One job, several times: seconds of the first and of the others, and of each stage.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use libtorch::Mark;
use panorama::{Blend, Checkpointing, Engine, Limits, Picture, Scheduler, Settings, Sources, Stage, SyncMode, Widths};
use sd2::{Bundle, Sd2};
use serde_json::{Value, json};

use crate::check::psnr;
use crate::place;
use crate::record::Records;

#[derive(Args)]
pub(crate) struct Options {
    /// Folder of a bundle.
    model: PathBuf,
    /// What the record is called.
    #[arg(long, default_value = "job")]
    name: String,
    #[command(flatten)]
    place: place::Options,
    #[arg(long, default_value = "2048x512")]
    size: Pair,
    #[arg(long, default_value_t = 50)]
    steps: u32,
    /// Synchronised steps.
    #[arg(long, default_value_t = 5)]
    syncs: u32,
    /// Distance between windows, in latents.
    #[arg(long, default_value_t = 16)]
    stride: u32,
    #[arg(long, default_value_t = 2)]
    repeat: usize,
    /// The most windows of a batch, without and with a gradient.
    #[arg(long, default_value = "26x12")]
    widths: Pair,
    /// Compute each width of the worker's list once before the first job, as the worker does, and no others.
    #[arg(long)]
    rehearse: bool,
    /// Recompute attention on the way back.
    #[arg(long)]
    checkpointing: bool,
    /// File for the picture's bytes.
    #[arg(long)]
    rgb: Option<PathBuf>,
    /// Such a file, to compare the picture with.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Write what the device did in the last job to this file.
    #[arg(long)]
    profile: Option<PathBuf>,
}

/// Two numbers, as `2048x512`.
#[derive(Clone, Copy)]
struct Pair(u32, u32);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('x').and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        numbers.ok_or_else(|| format!("`{text}` is not two numbers; write `2048x512`"))
    }
}

/// What the batches of a stage took.
#[derive(Default)]
struct Spent {
    batches: usize,
    windows: usize,
    marks: Vec<(Mark, Mark)>,
    /// Until the batch was given to the device.
    host_seconds: f64,
}

pub(crate) fn run(options: &Options, records: &Records) -> Result<()> {
    let placement = options.place.place()?;
    let started = Instant::now();
    let mut engine = Engine::new(Sd2::load(&Bundle::open(&options.model)?, placement)?, 1);
    let load_seconds = started.elapsed().as_secs_f64();
    let Pair(denoise, synchronise) = options.widths;
    let limits = Limits {
        denoise: denoise as usize,
        synchronise: synchronise as usize,
        checkpointing: if options.checkpointing { Checkpointing::On } else { Checkpointing::Off },
        widths: if options.rehearse { Widths::Listed } else { Widths::Any },
        ..Limits::default()
    };
    let started = Instant::now();
    if options.rehearse {
        rehearse(&mut engine, options, limits)?;
    }
    let warm_up_seconds = started.elapsed().as_secs_f64();
    let (mut seconds, mut last) = (Vec::new(), None);
    for i in 0..options.repeat.max(1) {
        let profile = options.profile.as_ref().filter(|_| i + 1 == options.repeat.max(1));
        if profile.is_some() {
            libtorch::profile::start()?;
        }
        let started = Instant::now();
        let (picture, stages) = draw(&mut engine, options, limits)?;
        seconds.push(started.elapsed().as_secs_f64());
        if let Some(file) = profile {
            fs::write(file, libtorch::profile::stop()?).context("cannot write the profile")?;
        }
        last = Some((picture, stages));
    }
    let (picture, stages) = last.context("nothing was drawn")?;
    if let Some(file) = &options.rgb {
        fs::write(file, &picture.rgb).with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    let other = options.against.as_ref().map(fs::read).transpose().context("cannot read the file of `--against`")?;
    let mut hash = DefaultHasher::new();
    picture.rgb.hash(&mut hash);
    records.add(&json!({
        "record": "job",
        "name": options.name,
        "place": options.place.describe(&placement),
        "size": [options.size.0, options.size.1],
        "steps": options.steps,
        "syncs": options.syncs,
        "widths": [denoise, synchronise],
        "checkpointing": options.checkpointing,
        "load_seconds": load_seconds,
        "warm_up_seconds": options.rehearse.then_some(warm_up_seconds),
        "seconds": seconds,
        "stages": stages,
        "peak_bytes": place::peak(placement.device)?,
        "hash": format!("{:016x}", hash.finish()),
        "flat": picture.rgb.iter().all(|byte| *byte == picture.rgb[0]),
        "psnr": other.map(|other| psnr(&picture.rgb, &other)),
    }))
}

/// Draws the picture of the job. Returns what each stage took, too.
fn draw(engine: &mut Engine, options: &Options, limits: Limits) -> Result<(Picture, Value)> {
    let device = engine.model().placement.device;
    let mut panorama = engine.begin(&settings(options, options.steps, options.syncs))?;
    let mut stages: BTreeMap<&str, Spent> = BTreeMap::new();
    while let Some(stage) = panorama.stage() {
        let tasks = panorama.take(limits.next(stage, panorama.waiting()));
        let (begun, from) = (Instant::now(), Mark::new(device)?);
        let outcomes = engine.compute(&tasks, limits);
        let spent = stages.entry(name(stage)).or_default();
        spent.host_seconds += begun.elapsed().as_secs_f64();
        spent.marks.push((from, Mark::new(device)?));
        spent.batches += 1;
        spent.windows += tasks.len();
        for outcome in outcomes {
            if let Some(picture) = panorama.put(outcome) {
                return Ok((picture, summary(&stages)?));
            }
        }
    }
    bail!("the job ended without a picture")
}

fn summary(stages: &BTreeMap<&str, Spent>) -> Result<Value> {
    let mut summary = serde_json::Map::new();
    for (stage, spent) in stages {
        let mut seconds = 0.0;
        for (from, to) in &spent.marks {
            seconds += to.seconds_since(from)?;
        }
        let Spent { batches, windows, host_seconds, .. } = spent;
        let of_stage =
            json!({ "batches": batches, "windows": windows, "seconds": seconds, "host_seconds": host_seconds });
        summary.insert((*stage).to_owned(), of_stage);
    }
    Ok(summary.into())
}

/// Computes a batch of every width that the job may have.
fn rehearse(engine: &mut Engine, options: &Options, limits: Limits) -> Result<()> {
    let mut panorama = engine.begin(&settings(options, 1, 1.min(options.syncs)))?;
    while let Some(stage) = panorama.stage() {
        let tasks = panorama.take(usize::MAX);
        for width in limits.widths(stage) {
            engine.rehearse(&tasks[0], *width, limits);
        }
        for outcome in engine.compute(&tasks[..1], limits).into_iter().chain(engine.compute(&tasks[1..], limits)) {
            panorama.put(outcome);
        }
    }
    Ok(())
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Denoise => "denoise",
        Stage::Target => "target",
        Stage::Synchronise => "synchronise",
        Stage::Decode => "decode",
    }
}

fn settings(options: &Options, steps: u32, syncs: u32) -> Settings {
    Settings {
        prompt: "a photo of a mountain range at twilight".to_owned(),
        negative_prompt: String::new(),
        width: options.size.0,
        height: options.size.1,
        guidance_scale: 7.5,
        sync_weight: 20.0,
        sync_decay_rate: 0.99,
        sync_freq: 1,
        sync_threshold: syncs,
        num_inference_steps: steps,
        stride: options.stride,
        seed: 2,
        loop_closure: false,
        blend: Blend::Even,
        seamless: false,
        sync_mode: SyncMode::Windows,
        scheduler: Scheduler::Ddim,
        sources: Sources::default(),
    }
}
