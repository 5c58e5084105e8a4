//! Finds out how much goes in a batch, and makes the first job as fast as the second.

use std::time::Duration;

use geometry::Geometry;
use libtorch::Mark;
use panorama::{
    Blend, Checkpointing, Engine, Limits, Outcome, Scheduler, Settings, Sources, Stage, SyncMode, Widths, range,
};
use sd2::vae::Decoder;
use tch::Device;

use crate::failure::{catch, is_out_of_memory};
use crate::memory::{self, Budget};
use crate::prices::{Kind, Prices};

/// Beyond these, wider batches gain nothing.
const MAX_LIMITS: Limits = Limits {
    denoise: 26,
    synchronise: 8,
    checkpointing: Checkpointing::Off,
    widths: Widths::Any,
    strip: Decoder::STRIP,
    kept: i64::MAX,
};

/// The same of a GPU, for which every width is new once, and which decodes in less time than a batch takes.
const MAX_ON_GPU: Limits = Limits { synchronise: 12, widths: Widths::Listed, kept: 0, ..MAX_LIMITS };

/// How long a batch may take: a cancel waits for it.
const MAX_BATCH: Duration = Duration::from_secs(2);

/// Memory of a gradient without checkpointing, as a multiple of one with it, on a CPU.
const WITHOUT_CHECKPOINTING: f64 = 2.5;

/// Bytes of a number of a feature map in the widest dtype.
const BYTES_OF_NUMBER: u64 = 4;

/// How many windows take no more memory than one does with its gradient.
const WITHOUT_GRADIENT: usize = 4;

/// Bytes that a GPU needs for each number of the largest feature map of a picture that is decoded in one piece: half a
/// dozen maps in fp32.
const BYTES_OF_DECODE: u64 = 24;

/// The largest strip: half of what an index of 32 bits reaches.
const MAX_STRIP: u64 = 1 << 30;

/// How many jobs a worker advances at once: each makes the others wait.
const MAX_JOBS: u64 = 4;

/// The most that a job keeps between batches: latents of 441 windows, three times, and its texts.
const MAX_JOB_BYTES: u64 = 128 << 20;

/// What a worker knows of its device when it begins.
pub(crate) struct WarmUp {
    /// How much goes in a batch.
    pub(crate) limits: Limits,
    /// How many jobs it advances at once.
    pub(crate) jobs: u32,
    pub(crate) prices: Prices,
}

/// What a small panorama took.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Memory of the gradient of one window with checkpointing, in bytes.
    gradient: u64,
    /// The same without, as a multiple of it.
    without_checkpointing: f64,
    /// Time of one window without its gradient.
    window: Duration,
}

/// Runs a panorama of two windows for one step, in the way that takes the least memory. Returns the limits of a batch
/// by what that took, and how many jobs fit. On a GPU a batch of every width is computed, too.
///
/// # Errors
/// If the model cannot draw it.
pub(crate) fn run(engine: &mut Engine, budget: Option<Budget>) -> anyhow::Result<WarmUp> {
    let (device, threads) = (engine.model().placement.device, engine.threads());
    let least = Limits { checkpointing: Checkpointing::On, ..Limits::default() };
    let before = memory::used(device);
    let mut prices = Prices::assuming(1, 1e-9);
    let Some(measured) = measure(engine, least, before, &mut prices)? else {
        return Ok(WarmUp { limits: Limits { denoise: threads, ..least }, jobs: 1, prices });
    };
    let budget = match (budget, device) {
        (Some(Budget(all)), _) => all.saturating_sub(before),
        (None, Device::Cpu) => memory::available(device) / 2,
        // A GPU is there for this alone.
        (None, _) => memory::available(device) / 10 * 9,
    };
    let max = if device == Device::Cpu {
        max_on_cpu(measured.window, threads)
    } else {
        let strip = (budget / BYTES_OF_DECODE).clamp(Decoder::STRIP as u64, MAX_STRIP) as i64;
        Limits { strip, ..MAX_ON_GPU }
    };
    let mut limits = fitting(measured, budget, max);
    rehearse(engine, &mut limits)?;
    tracing::info!(?limits, threads, gradient_bytes = measured.gradient, budget_bytes = budget, "warmed up");
    Ok(WarmUp { limits, jobs: (budget / MAX_JOB_BYTES).clamp(1, MAX_JOBS) as u32, prices })
}

/// Measures; `None` if a window takes longer than a batch may: a gradient would keep the first job waiting.
fn measure(engine: &mut Engine, limits: Limits, before: u64, prices: &mut Prices) -> anyhow::Result<Option<Measured>> {
    let device = engine.model().placement.device;
    let smallest = smallest(engine.model().geometry());
    let mut panorama = match catch(|| engine.begin(&smallest)) {
        Ok(panorama) => panorama?,
        Err(error) => return not_measured(&error),
    };
    engine.forget_texts();
    let (mut gradient, mut window) = (0, Duration::MAX);
    let mut without_checkpointing = WITHOUT_CHECKPOINTING;
    while let Some(stage) = panorama.stage() {
        if stage == Stage::Synchronise && window > MAX_BATCH {
            // Minutes of warm-up are minutes of waiting.
            tracing::info!(?window, "warm-up stopped: a window takes long on this device");
            return Ok(None);
        }
        let begin = Mark::new(device)?;
        let tasks = panorama.take(limits.of(stage));
        let (outcomes, taken) = memory::taken_by(device, before, || catch(|| engine.compute(&tasks, limits)));
        let seconds = Mark::new(device)?.seconds_since(&begin)?;
        let price = panorama.price(stage);
        match outcomes {
            Ok(outcomes) => {
                for outcome in outcomes {
                    if let Outcome::OutOfRange(network) = outcome {
                        return not_measured(&range::explain(engine.model(), network));
                    }
                    panorama.put(outcome);
                }
            }
            Err(error) => return not_measured(&error),
        }
        match stage {
            // The first was slower: everything was new.
            Stage::Denoise if Duration::from_secs_f64(seconds) < window => {
                window = Duration::from_secs_f64(seconds);
                prices.assume(price, seconds);
            }
            Stage::Synchronise => {
                gradient = taken.max(1);
                prices.record(Kind { stage, branches: panorama.branches() }, 1, price, seconds);
                if device != Device::Cpu {
                    let off = Limits { checkpointing: Checkpointing::Off, ..limits };
                    let (run, taken) =
                        memory::taken_by(device, before, || catch(|| engine.rehearse(&tasks[0], 1, off)));
                    // Where not even one fits, none do.
                    without_checkpointing = run.map_or(f64::INFINITY, |()| taken.max(1) as f64 / gradient as f64);
                }
            }
            Stage::Denoise | Stage::Target | Stage::Decode => {}
        }
    }
    Ok(Some(Measured { gradient, without_checkpointing, window }))
}

/// Computes a batch of every width that batches will have: the first of each takes a GPU seconds. A width that does not
/// fit is left out.
fn rehearse(engine: &mut Engine, limits: &mut Limits) -> anyhow::Result<()> {
    if limits.widths == Widths::Any {
        return Ok(());
    }
    let smallest = smallest(engine.model().geometry());
    let mut panorama = catch(|| engine.begin(&smallest)).map_err(anyhow::Error::msg)??;
    engine.forget_texts();
    let mut rehearsed = Vec::new();
    while let Some(stage) = panorama.stage().filter(|&stage| stage != Stage::Decode) {
        let tasks = panorama.take(1);
        let mut fits = 1;
        let widths = if rehearsed.contains(&stage) { &[][..] } else { limits.widths(stage) };
        for &width in widths {
            match catch(|| engine.rehearse(&tasks[0], width, *limits)) {
                Ok(()) => fits = width,
                Err(error) if is_out_of_memory(&error) => {
                    tracing::info!(?stage, width, "a batch does not fit: {error}");
                    match stage {
                        Stage::Denoise => limits.denoise = fits,
                        _ => limits.synchronise = fits,
                    }
                    break;
                }
                Err(error) => anyhow::bail!("{error}"),
            }
        }
        rehearsed.push(stage);
        for outcome in catch(|| engine.compute(&tasks, *limits)).map_err(anyhow::Error::msg)? {
            panorama.put(outcome);
        }
    }
    Ok(())
}

/// Numbers out of range end the warm-up and not the worker: they depend on the inputs, so each prediction finds them.
fn not_measured(error: &str) -> anyhow::Result<Option<Measured>> {
    if range::is_explained(error) {
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
    let (checkpointing, windows) = if gradients(measured.without_checkpointing) < max.of(Stage::Synchronise) {
        (Checkpointing::On, gradients(1.0).max(1))
    } else {
        (Checkpointing::Off, gradients(measured.without_checkpointing).max(1))
    };
    let synchronise = max.synchronise.min(windows);
    // What a picture that is half decoded keeps is in memory beside the widest batch.
    let factor = if checkpointing == Checkpointing::On { 1.0 } else { measured.without_checkpointing };
    let left = budget.saturating_sub((synchronise as f64 * measured.gradient as f64 * factor) as u64);
    let kept = max.kept.min((left / BYTES_OF_NUMBER) as i64);
    Limits { denoise: max.denoise.min(WITHOUT_GRADIENT * windows), synchronise, checkpointing, kept, ..max }
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
        sources: Sources::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::Checkpointing::{Off, On};
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_gpu_is_filled() {
        let window = Duration::from_millis(25);
        let measured = Measured { gradient: 2 * GIB, without_checkpointing: 2.5, window };
        for (budget, expected) in [
            (70, MAX_ON_GPU),
            (36, Limits { checkpointing: On, ..MAX_ON_GPU }),
            (12, Limits { denoise: 24, synchronise: 6, checkpointing: On, ..MAX_ON_GPU }),
            (5, Limits { denoise: 8, synchronise: 2, checkpointing: On, ..MAX_ON_GPU }),
            // What does not fit is tried all the same, and reported then.
            (1, Limits { denoise: 4, synchronise: 1, checkpointing: On, ..MAX_ON_GPU }),
        ] {
            assert_eq!(fitting(measured, budget * GIB, MAX_ON_GPU), expected, "{budget} GiB");
        }
        // With fused attention a gradient without checkpointing takes little more.
        let fused = Measured { without_checkpointing: 1.3, ..measured };
        assert_eq!(fitting(fused, 36 * GIB, MAX_ON_GPU), MAX_ON_GPU);
        let none = Measured { without_checkpointing: f64::INFINITY, ..measured };
        assert_eq!(fitting(none, 70 * GIB, MAX_ON_GPU).checkpointing, On);
    }

    #[test]
    fn a_cpu_computes_a_window_on_each_core() {
        let on_cpu =
            |measured: Measured, budget, threads| fitting(measured, budget, max_on_cpu(measured.window, threads));
        let limits = |denoise, synchronise, checkpointing, kept_bytes| {
            let kept = (kept_bytes / BYTES_OF_NUMBER) as i64;
            Limits { denoise, synchronise, checkpointing, kept, ..MAX_LIMITS }
        };
        let window = Duration::from_millis(130);
        let demo = Measured { gradient: GIB / 2, without_checkpointing: WITHOUT_CHECKPOINTING, window };
        assert_eq!(on_cpu(demo, 10 * GIB, 2), limits(15, 2, Off, 15 * GIB / 2));
        assert_eq!(on_cpu(demo, GIB, 2), limits(8, 2, On, 0));
        assert_eq!(on_cpu(demo, GIB / 4, 2), limits(4, 1, On, 0));
        let slow = Measured { window: Duration::from_millis(1900), ..demo };
        assert_eq!(on_cpu(slow, 64 * GIB, 8), limits(8, 8, Off, 54 * GIB));
    }
}
