//! Finds out how much goes in a batch, and makes the first job as fast as the second.

use std::time::{Duration, Instant};

use sd2::Geometry;
use syncdiffusion::{Engine, Kind, Limits, Settings};
use tch::Device;

use crate::memory::{self, Budget};

/// Beyond these, wider batches gain nothing.
const WIDEST: Limits = Limits { denoise: 26, synchronise: 8, thrifty: false };

/// How long a batch may take: a cancel waits for it.
const LONGEST: Duration = Duration::from_secs(2);

/// What a gradient takes that keeps all it can, as a multiple of what a thrifty one takes.
const LAVISH: f64 = 2.5;

/// How many jobs a worker advances at once, at most: each makes the others wait.
const JOBS: u64 = 4;

/// What a job keeps between batches at its largest: latents of 441 windows, three times, and its texts.
const JOB_BYTES: u64 = 128 << 20;

/// Runs a panorama of two windows for one step, in the way that takes the least memory; then sets the limits of the
/// engine by what that took. Returns how many jobs fit.
///
/// # Errors
/// If the model cannot do it.
pub(crate) fn run(engine: &mut Engine, budget: Option<Budget>) -> anyhow::Result<u32> {
    engine.limits = Limits { thrifty: true, ..Limits::default() };
    let before = memory::resident();
    let mut panorama = engine.begin(&smallest(engine.model().geometry()))?;
    engine.forget_texts();
    let (mut gradient, mut window) = (0, Duration::MAX);
    while let Some(kind) = panorama.kind() {
        if kind == Kind::Synchronise && window > LONGEST {
            // On such a machine minutes of warm-up would be minutes of waiting: what takes least is taken as it is.
            tracing::info!(?window, "not warmed up any further: a window takes long here");
            engine.limits.denoise = engine.threads();
            return Ok(1);
        }
        let start = Instant::now();
        for (task, outcome) in engine.compute(kind, panorama.take(1)) {
            panorama.put(task, outcome);
        }
        match kind {
            // The first was slower: everything was new.
            Kind::Denoise => window = window.min(start.elapsed()),
            Kind::Synchronise => gradient = memory::peak().saturating_sub(before).max(1),
            Kind::Target | Kind::Decode => {}
        }
    }

    if engine.model().placement.device != Device::Cpu {
        engine.limits = WIDEST;
        return Ok(JOBS as u32);
    }
    let budget = match budget {
        Some(Budget(all)) => all.saturating_sub(before),
        None => memory::available() / 2,
    };
    let threads = engine.threads();
    let fitting = |bytes: f64| (budget as f64 / bytes) as usize;
    let thrifty = fitting(gradient as f64 * LAVISH) < threads;
    let windows = fitting(gradient as f64 * if thrifty { 1.0 } else { LAVISH }).max(1);
    let in_time = (LONGEST.as_secs_f64() / window.as_secs_f64()) as usize;
    engine.limits = Limits {
        // A window takes far less without its gradient.
        denoise: WIDEST.denoise.min(in_time.max(threads)).min(4 * windows),
        synchronise: threads.min(windows),
        thrifty,
    };
    tracing::info!(limits = ?engine.limits, threads, gradient_bytes = gradient, budget_bytes = budget, "warmed up");
    Ok((budget / JOB_BYTES).clamp(1, JOBS) as u32)
}

/// Two windows, one step, and all that can be asked for in it.
fn smallest(Geometry { window, factor }: Geometry) -> Settings {
    let stride = (window / 4).max(1);
    Settings {
        prompt: "warm-up".to_owned(),
        negative_prompt: String::new(),
        width: (window + stride) * factor,
        height: window * factor,
        guidance_scale: 7.5,
        sync_weight: 20.0,
        sync_decay_rate: 1.0,
        sync_freq: 1,
        sync_threshold: 1,
        num_inference_steps: 1,
        stride,
        seed: 0,
        loop_closure: false,
    }
}
