//! Finds out how much goes in a batch, and makes the first job as fast as the second.

use std::{
    iter,
    time::{Duration, Instant},
};

use panorama::{Engine, Kind, Limits, Settings};
use sd2::Geometry;
use tch::Device;

use crate::memory::{self, Budget};

/// Beyond these, wider batches gain nothing.
const WIDEST: Limits = Limits { denoise: 26, synchronise: 8, thrifty: false };

/// How long a batch may take: a cancel waits for it.
const LONGEST: Duration = Duration::from_secs(2);

/// What a gradient takes that keeps all it can, as a multiple of what a thrifty one takes.
const LAVISH: f64 = 2.5;

/// How many windows take no more memory than one does with its gradient.
const WITHOUT_GRADIENT: usize = 4;

/// How many jobs a worker advances at once, at most: each makes the others wait.
const JOBS: u64 = 4;

/// What a job keeps between batches at its largest: latents of 441 windows, three times, and its texts.
const JOB_BYTES: u64 = 128 << 20;

/// What a small panorama took.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Memory of a thrifty gradient of one window, in bytes.
    gradient: u64,
    /// Time of one window without.
    window: Duration,
}

/// Runs a panorama of two windows for one step, in the way that takes the least memory; then sets the limits of the
/// engine by what that took. Returns how many jobs fit.
///
/// # Errors
/// If the model cannot do it.
pub(crate) fn run(engine: &mut Engine, budget: Option<Budget>) -> anyhow::Result<u32> {
    let (device, threads) = (engine.model().placement.device, engine.threads());
    engine.limits = Limits { thrifty: true, ..Limits::default() };
    let before = memory::used(device);
    let Some(measured) = measure(engine, before)? else {
        engine.limits.denoise = threads;
        return Ok(1);
    };
    let budget = match (budget, device) {
        (Some(Budget(all)), _) => all.saturating_sub(before),
        (None, Device::Cpu) => memory::available(device) / 2,
        // A GPU is there for this. What the gradient took is libtorch's to use again.
        (None, _) => (memory::available(device) + measured.gradient) / 10 * 9,
    };
    let widest = if device == Device::Cpu { widest_on_cpu(measured.window, threads) } else { WIDEST };
    engine.limits = fitting(measured, budget, widest);
    tracing::info!(limits = ?engine.limits, threads, gradient_bytes = measured.gradient, budget_bytes = budget, "warmed up");
    Ok((budget / JOB_BYTES).clamp(1, JOBS) as u32)
}

/// Measures; `None` if a window takes so long here that what takes least memory is best taken as it is.
fn measure(engine: &mut Engine, before: u64) -> anyhow::Result<Option<Measured>> {
    let device = engine.model().placement.device;
    let mut panorama = engine.begin(&smallest(engine.model().geometry()))?;
    engine.forget_texts();
    let (mut gradient, mut window) = (0, Duration::MAX);
    while let Some(kind) = panorama.kind() {
        if kind == Kind::Synchronise && window > LONGEST {
            // Minutes of warm-up would be minutes of waiting.
            tracing::info!(?window, "not warmed up any further: a window takes long here");
            return Ok(None);
        }
        let start = Instant::now();
        let tasks = panorama.take(1);
        let outcomes = engine.compute(kind, &tasks);
        for (task, outcome) in iter::zip(tasks, outcomes) {
            panorama.put(task, outcome);
        }
        match kind {
            // The first was slower: everything was new.
            Kind::Denoise => window = window.min(start.elapsed()),
            Kind::Synchronise => gradient = memory::most_used(device).saturating_sub(before).max(1),
            Kind::Target | Kind::Decode => {}
        }
    }
    Ok(Some(Measured { gradient, window }))
}

/// A core computes its windows alone: wide batches gain nothing there but fewer rounds.
fn widest_on_cpu(window: Duration, threads: usize) -> Limits {
    let in_time = (LONGEST.as_secs_f64() / window.as_secs_f64()) as usize;
    Limits { denoise: WIDEST.denoise.min(in_time.max(threads)), synchronise: threads, thrifty: false }
}

/// As much of the widest as fits; with thrifty gradients, if fewer of the others do.
fn fitting(measured: Measured, budget: u64, widest: Limits) -> Limits {
    let gradients = |factor: f64| (budget as f64 / (measured.gradient as f64 * factor)) as usize;
    let thrifty = gradients(LAVISH) < widest.synchronise;
    let windows = gradients(if thrifty { 1.0 } else { LAVISH }).max(1);
    Limits {
        denoise: widest.denoise.min(WITHOUT_GRADIENT * windows),
        synchronise: widest.synchronise.min(windows),
        thrifty,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_gpu_is_filled() {
        let measured = Measured { gradient: 2 * GIB, window: Duration::from_millis(25) };
        for (budget, expected) in [
            (70, WIDEST),
            (36, Limits { thrifty: true, ..WIDEST }),
            (12, Limits { denoise: 24, synchronise: 6, thrifty: true }),
            (5, Limits { denoise: 8, synchronise: 2, thrifty: true }),
            // What does not fit is tried all the same, and said then.
            (1, Limits { denoise: 4, synchronise: 1, thrifty: true }),
        ] {
            assert_eq!(fitting(measured, budget * GIB, WIDEST), expected, "{budget} GiB");
        }
    }

    #[test]
    fn a_cpu_computes_a_window_on_each_core() {
        let on_cpu =
            |measured: Measured, budget, threads| fitting(measured, budget, widest_on_cpu(measured.window, threads));
        let demo = Measured { gradient: GIB / 2, window: Duration::from_millis(130) };
        assert_eq!(on_cpu(demo, 10 * GIB, 2), Limits { denoise: 15, synchronise: 2, thrifty: false });
        assert_eq!(on_cpu(demo, GIB, 2), Limits { denoise: 8, synchronise: 2, thrifty: true });
        assert_eq!(on_cpu(demo, GIB / 4, 2), Limits { denoise: 4, synchronise: 1, thrifty: true });
        let slow = Measured { gradient: GIB / 2, window: Duration::from_millis(1900) };
        assert_eq!(on_cpu(slow, 64 * GIB, 8), Limits { denoise: 8, synchronise: 8, thrifty: false });
    }
}
