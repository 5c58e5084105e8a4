//! Finds out how much goes in a batch, and makes the first job as fast as the second.

use std::ops::ControlFlow;

use sd2::Geometry;
use syncdiffusion::{Engine, Limits, Settings};
use tch::Device;

use crate::memory::{self, Budget};

/// Batches that fit everywhere.
pub(crate) const MODEST: Limits = Limits { denoise: 1, synchronise: 1 };

/// Beyond these, wider batches gain nothing.
const WIDEST: Limits = Limits { denoise: 26, synchronise: 4 };

/// How many jobs a worker advances at once, at most.
const JOBS: u32 = 4;

/// Runs a tiny panorama of two windows, so that everything was used once; then sets the limits of the engine by what
/// that took. Returns how many jobs fit.
pub(crate) fn run(engine: &mut Engine, budget: Option<Budget>) -> anyhow::Result<u32> {
    let Geometry { window, factor } = engine.model().geometry();
    let stride = (window / 4).max(1);
    let settings = Settings {
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
    };
    let before = memory::resident();
    syncdiffusion::run(engine, &settings, |_| ControlFlow::Continue(()))?;
    engine.forget_texts();
    let gradient = memory::peak().saturating_sub(before).max(1);
    let budget = budget.map_or_else(|| memory::available() / 2, |budget| budget.0);
    if engine.model().placement.device == Device::Cpu {
        // The gradient of a window keeps its activations, so it takes the most; a window without gradient far less.
        let windows = (budget / gradient).max(1) as usize;
        engine.limits =
            Limits { denoise: WIDEST.denoise.min(4 * windows), synchronise: WIDEST.synchronise.min(windows) };
    } else {
        engine.limits = WIDEST;
    }
    tracing::info!(?engine.limits, gradient_bytes = gradient, budget_bytes = budget, "warmed up");
    Ok(JOBS)
}
