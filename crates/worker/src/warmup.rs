//! Finds out how much goes in a batch, and makes the first job as fast as the second.

use std::time::{Duration, Instant};

use geometry::Geometry;
use panorama::{Blend, Checkpointing, Engine, Limits, Scheduler, Settings, Stage, SyncMode};
use tch::Device;

use crate::failure::catch;
use crate::memory::{self, Budget};

/// Beyond these, wider batches gain nothing.
const MAX_LIMITS: Limits = Limits { denoise: 26, synchronise: 8, checkpointing: Checkpointing::Off };

/// How long a batch may take: a cancel waits for it.
const MAX_BATCH: Duration = Duration::from_secs(2);

/// Memory of a gradient without checkpointing, as a multiple of one with it.
const WITHOUT_CHECKPOINTING: f64 = 2.5;

/// How many windows take no more memory than one does with its gradient.
const WITHOUT_GRADIENT: usize = 4;

/// How many jobs a worker advances at once: each makes the others wait.
const MAX_JOBS: u64 = 4;

/// The most that a job keeps between batches: latents of 441 windows, three times, and its texts.
const MAX_JOB_BYTES: u64 = 128 << 20;

/// What a small panorama took.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Memory of the gradient of one window with checkpointing, in bytes.
    gradient: u64,
    /// Time of one window without its gradient.
    window: Duration,
}

/// Runs a panorama of two windows for one step, in the way that takes the least memory. Returns the limits of a batch
/// by what that took, and how many jobs fit.
///
/// # Errors
/// If the model cannot draw it.
pub(crate) fn run(engine: &mut Engine, budget: Option<Budget>) -> anyhow::Result<(Limits, u32)> {
    let (device, threads) = (engine.model().placement.device, engine.threads());
    let least = Limits { checkpointing: Checkpointing::On, ..Limits::default() };
    let before = memory::used(device);
    let Some(measured) = measure(engine, least, before)? else {
        return Ok((Limits { denoise: threads, ..least }, 1));
    };
    let budget = match (budget, device) {
        (Some(Budget(all)), _) => all.saturating_sub(before),
        (None, Device::Cpu) => memory::available(device) / 2,
        // A GPU is there for this alone. What the gradient took, libtorch can use again.
        (None, _) => (memory::available(device) + measured.gradient) / 10 * 9,
    };
    let max = if device == Device::Cpu { max_on_cpu(measured.window, threads) } else { MAX_LIMITS };
    let limits = fitting(measured, budget, max);
    tracing::info!(?limits, threads, gradient_bytes = measured.gradient, budget_bytes = budget, "warmed up");
    Ok((limits, (budget / MAX_JOB_BYTES).clamp(1, MAX_JOBS) as u32))
}

/// Measures; `None` if a window takes longer than a batch may: a gradient would keep the first job waiting.
fn measure(engine: &mut Engine, limits: Limits, before: u64) -> anyhow::Result<Option<Measured>> {
    let device = engine.model().placement.device;
    let smallest = smallest(engine.model().geometry());
    let mut panorama = match catch(|| engine.begin(&smallest)) {
        Ok(panorama) => panorama?,
        Err(error) => return not_measured(&error),
    };
    engine.forget_texts();
    let (mut gradient, mut window) = (0, Duration::MAX);
    while let Some(stage) = panorama.stage() {
        if stage == Stage::Synchronise && window > MAX_BATCH {
            // Minutes of warm-up are minutes of waiting.
            tracing::info!(?window, "warm-up stopped: a window takes long on this device");
            return Ok(None);
        }
        let start = Instant::now();
        let tasks = panorama.take(limits.of(stage));
        match catch(|| engine.compute(&tasks, limits.checkpointing)) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    panorama.put(outcome);
                }
            }
            Err(error) => return not_measured(&error),
        }
        match stage {
            // The first was slower: everything was new.
            Stage::Denoise => window = window.min(start.elapsed()),
            Stage::Synchronise => gradient = memory::max_used(device).saturating_sub(before).max(1),
            Stage::Target | Stage::Decode => {}
        }
    }
    Ok(Some(Measured { gradient, window }))
}

/// Numbers out of range end the warm-up and not the worker: they depend on the inputs, so each prediction finds them.
fn not_measured(error: &str) -> anyhow::Result<Option<Measured>> {
    if panorama::range::is_explained(error) {
        tracing::warn!("not warmed up: {error}");
        return Ok(None);
    }
    anyhow::bail!("{error}")
}

/// A core computes its windows alone: wide batches gain nothing there but fewer rounds.
fn max_on_cpu(window: Duration, threads: usize) -> Limits {
    let in_time = (MAX_BATCH.as_secs_f64() / window.as_secs_f64()) as usize;
    Limits { denoise: MAX_LIMITS.denoise.min(in_time.max(threads)), synchronise: threads, ..MAX_LIMITS }
}

/// As much of the maximum as fits; with checkpointing, if that many gradients do not fit without.
fn fitting(measured: Measured, budget: u64, max: Limits) -> Limits {
    let gradients = |factor: f64| (budget as f64 / (measured.gradient as f64 * factor)) as usize;
    let (checkpointing, windows) = if gradients(WITHOUT_CHECKPOINTING) < max.synchronise {
        (Checkpointing::On, gradients(1.0).max(1))
    } else {
        (Checkpointing::Off, gradients(WITHOUT_CHECKPOINTING).max(1))
    };
    Limits {
        denoise: max.denoise.min(WITHOUT_GRADIENT * windows),
        synchronise: max.synchronise.min(windows),
        checkpointing,
    }
}

/// Two windows, one step, and every stage in it.
fn smallest(Geometry { window, vae_factor: factor }: Geometry) -> Settings {
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
        blend: Blend::Even,
        seamless: false,
        sync_mode: SyncMode::Windows,
        scheduler: Scheduler::Ddim,
    }
}

#[cfg(test)]
mod tests {
    use super::Checkpointing::{Off, On};
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_gpu_is_filled() {
        let measured = Measured { gradient: 2 * GIB, window: Duration::from_millis(25) };
        for (budget, expected) in [
            (70, MAX_LIMITS),
            (36, Limits { checkpointing: On, ..MAX_LIMITS }),
            (12, Limits { denoise: 24, synchronise: 6, checkpointing: On }),
            (5, Limits { denoise: 8, synchronise: 2, checkpointing: On }),
            // What does not fit is tried all the same, and reported then.
            (1, Limits { denoise: 4, synchronise: 1, checkpointing: On }),
        ] {
            assert_eq!(fitting(measured, budget * GIB, MAX_LIMITS), expected, "{budget} GiB");
        }
    }

    #[test]
    fn a_cpu_computes_a_window_on_each_core() {
        let on_cpu =
            |measured: Measured, budget, threads| fitting(measured, budget, max_on_cpu(measured.window, threads));
        let demo = Measured { gradient: GIB / 2, window: Duration::from_millis(130) };
        assert_eq!(on_cpu(demo, 10 * GIB, 2), Limits { denoise: 15, synchronise: 2, checkpointing: Off });
        assert_eq!(on_cpu(demo, GIB, 2), Limits { denoise: 8, synchronise: 2, checkpointing: On });
        assert_eq!(on_cpu(demo, GIB / 4, 2), Limits { denoise: 4, synchronise: 1, checkpointing: On });
        let slow = Measured { gradient: GIB / 2, window: Duration::from_millis(1900) };
        assert_eq!(on_cpu(slow, 64 * GIB, 8), Limits { denoise: 8, synchronise: 8, checkpointing: Off });
    }
}
