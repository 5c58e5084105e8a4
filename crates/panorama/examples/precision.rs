//! What a dtype costs in exactness: the same job in each of them, against f32.
//!
//! `cargo run --release -p panorama --example precision -- MODEL [WIDTH STEPS SYNCS] [DTYPE...]`
//!
//! It is computed the way a GPU computes it, but on the CPU: by libtorch's norms, in its memory order. `f16+bf16` is
//! another dtype for decoder and perceptual network, which are otherwise computed in the first.
//!
//! Prints a Markdown table: the relative error of the synchronisation gradients of the first step (of all windows
//! together, in the Euclidean norm), that of the final latents, and the PSNR of the picture.

use std::env;

use anyhow::{Context, Result, bail};
use panorama::{Blend, Checkpointing, Engine, Limits, Outcome, Picture, Scheduler, Settings, Sources, SyncMode};
use sd2::{Bundle, Placement, Sd2};
use tch::{Device, Kind as Dtype, Tensor};

/// What is compared without being asked for: first what a GPU computes in 16 bit, then f16 beside wider pictures.
const DTYPES: [&str; 4] = ["bf16", "f16", "f16+f32", "f16+bf16"];

/// What a job leaves behind to compare.
struct Traces {
    gradients: Tensor,
    latents: Tensor,
    picture: Picture,
}

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let model = args.next().context("which model? give the folder of a bundle, such as `models/demo`")?;
    let mut number = |default| args.next().map_or(Ok(default), |text| text.parse::<u32>());
    let (width, steps, syncs) = (number(1024)?, number(20)?, number(3)?);
    let dtypes: Vec<String> = args.collect();
    let dtypes = if dtypes.is_empty() { DTYPES.map(ToOwned::to_owned).to_vec() } else { dtypes };

    println!("`{model}`, {width}x512, {steps} steps, {syncs} of them synchronised, against f32:\n");
    println!("| dtype | decoder and LPIPS | error of sync gradients | error of latents | PSNR, dB |");
    println!("|---|---|---|---|---|");
    let exact = run(&model, Placement::new(Device::Cpu, Dtype::Float), width, steps, syncs)?;
    for name in dtypes {
        let (whole, pictures) = name.split_once('+').unwrap_or((&name, &name));
        let placement = Placement::of_gpu_on_cpu(dtype(whole)?);
        let rounded = run(&model, Placement { picture_kind: dtype(pictures)?, ..placement }, width, steps, syncs)?;
        println!(
            "| {whole} | {pictures} | {:.1e} | {:.1e} | {:.1} |",
            relative_error(&rounded.gradients, &exact.gradients),
            relative_error(&rounded.latents, &exact.latents),
            psnr(&rounded.picture.rgb, &exact.picture.rgb),
        );
    }
    Ok(())
}

fn dtype(name: &str) -> Result<Dtype> {
    match name {
        "f32" => Ok(Dtype::Float),
        "bf16" => Ok(Dtype::BFloat16),
        "f16" => Ok(Dtype::Half),
        other => bail!("`{other}` is not a dtype to compare; use `f32`, `bf16` or `f16`"),
    }
}

fn run(model: &str, placement: Placement, width: u32, steps: u32, syncs: u32) -> Result<Traces> {
    let threads = std::thread::available_parallelism()?.get();
    let limits =
        Limits { denoise: 2 * threads, synchronise: threads, checkpointing: Checkpointing::On, ..Limits::default() };
    let mut engine = Engine::new(Sd2::load(&Bundle::open(model)?, placement)?, threads);
    let mut panorama = engine.begin(&Settings {
        prompt: "a photo of a mountain range at twilight".to_owned(),
        negative_prompt: String::new(),
        width,
        height: 512,
        guidance_scale: 7.5,
        sync_weight: 20.0,
        sync_decay_rate: 0.99,
        sync_freq: 1,
        sync_threshold: syncs,
        num_inference_steps: steps,
        stride: 16,
        seed: 2,
        loop_closure: false,
        blend: Blend::Even,
        seamless: false,
        sync_mode: SyncMode::Windows,
        scheduler: Scheduler::Ddim,
        sources: Sources::default(),
    })?;
    let mut gradients = Vec::new();
    while let Some(stage) = panorama.stage() {
        let tasks = panorama.take(limits.of(stage));
        for outcome in engine.compute(&tasks, limits) {
            if let Outcome::Gradient { gradient, .. } = &outcome
                && panorama.progress().step == 0
            {
                gradients.push(gradient.copy());
            }
            if let Some(picture) = panorama.put(outcome) {
                if gradients.is_empty() {
                    bail!("nothing was synchronised; use more than one window and at least one synchronised step");
                }
                return Ok(Traces {
                    gradients: Tensor::cat(&gradients, 0),
                    latents: panorama.latents().copy(),
                    picture,
                });
            }
        }
    }
    bail!("the job ended without a picture")
}

/// In the Euclidean norm.
fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |x: &Tensor| x.to_kind(Dtype::Double).norm().double_value(&[]);
    norm(&(a - b)) / norm(b)
}

/// In dB, of bytes.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = std::iter::zip(a, b).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) * a.len() as f64 / squares).log10()
}
