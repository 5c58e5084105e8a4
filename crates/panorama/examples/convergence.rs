//! How near the pictures of few steps are to those of many.
//!
//! `cargo run --release -p panorama --example convergence -- MODEL [PROMPTS]`
//!
//! Prints a Markdown table: for each scheduler and number of steps the PSNR of 512x512 pictures to those of DDIM with
//! 150 steps, as the mean over prompts. Fails unless UniPC with 20 steps is at least as near as DDIM with 25.

use std::env;

use anyhow::{Context, Result, bail};
use panorama::{Blend, Checkpointing, Engine, Limits, Scheduler, Settings, Sources, SyncMode};
use sd2::{Bundle, Placement, Sd2};
use tch::{Device, Kind};

const PROMPTS: [&str; 6] = [
    "a lake at dawn",
    "a city at night",
    "a photo of a mountain range at twilight",
    "a beach with palms at sunset",
    "a forest in autumn, oil painting",
    "a desert under a starry sky",
];

const REFERENCE: (Scheduler, u32) = (Scheduler::Ddim, 150);
const STEPS: [u32; 5] = [10, 15, 20, 25, 50];

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let model = args.next().context("which model? give the folder of a bundle, such as `models/demo`")?;
    let prompts = args.next().map_or(Ok(PROMPTS.len()), |text| text.parse())?.clamp(1, PROMPTS.len());
    let threads = std::thread::available_parallelism()?.get();
    let mut engine = Engine::new(Sd2::load(&Bundle::open(&model)?, Placement::new(Device::Cpu, Kind::Float))?, threads);
    let schedulers = [("ddim", Scheduler::Ddim), ("dpmpp_2m", Scheduler::DpmPp2m), ("unipc", Scheduler::UniPc)];
    let references = pictures(&mut engine, prompts, REFERENCE)?;

    println!("`{model}`, 512x512, {prompts} prompts, PSNR in dB to DDIM with {} steps, mean (least):\n", REFERENCE.1);
    println!("| steps | {} |", schedulers.map(|(name, _)| name).join(" | "));
    println!("|---|{}", "---|".repeat(schedulers.len()));
    let mut found = Vec::new();
    for steps in STEPS {
        let mut cells = vec![steps.to_string()];
        for (name, scheduler) in schedulers {
            let pictures = pictures(&mut engine, prompts, (scheduler, steps))?;
            let values: Vec<f64> = pictures.iter().zip(&references).map(|(a, b)| psnr(a, b)).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            cells.push(format!("{mean:.1} ({:.1})", values.iter().copied().fold(f64::INFINITY, f64::min)));
            found.push(((name, steps), mean));
        }
        println!("| {} |", cells.join(" | "));
    }
    let of = |key| found.iter().find(|(known, _)| *known == key).map(|(_, mean)| *mean);
    let (unipc, ddim) = (of(("unipc", 20)).context("not measured")?, of(("ddim", 25)).context("not measured")?);
    if unipc < ddim {
        bail!("UniPC with 20 steps is at {unipc:.1} dB, DDIM with 25 at {ddim:.1}");
    }
    println!("\nUniPC with 20 steps is at {unipc:.1} dB, DDIM with 25 at {ddim:.1}.");
    Ok(())
}

/// The bytes of the picture of each prompt.
fn pictures(engine: &mut Engine, prompts: usize, (scheduler, steps): (Scheduler, u32)) -> Result<Vec<Vec<u8>>> {
    let picture = |(seed, prompt): (usize, &&str)| {
        let settings = Settings {
            prompt: (*prompt).to_owned(),
            negative_prompt: String::new(),
            width: 512,
            height: 512,
            guidance_scale: 7.5,
            sync_weight: 0.0,
            sync_decay_rate: 1.0,
            sync_freq: 1,
            sync_threshold: 0,
            num_inference_steps: steps,
            stride: 16,
            seed: seed as u64,
            loop_closure: false,
            blend: Blend::Even,
            seamless: false,
            sync_mode: SyncMode::Windows,
            scheduler,
            sources: Sources::default(),
        };
        let limits = Limits { checkpointing: Checkpointing::Off, ..Limits::default() };
        let mut panorama = engine.begin(&settings)?;
        while let Some(stage) = panorama.stage() {
            for outcome in engine.compute(&panorama.take(limits.of(stage)), limits) {
                if let Some(picture) = panorama.put(outcome) {
                    return Ok(picture.rgb);
                }
            }
        }
        bail!("the job ended without a picture")
    };
    PROMPTS.iter().take(prompts).enumerate().map(picture).collect()
}

/// In dB, of bytes.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = std::iter::zip(a, b).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) * a.len() as f64 / squares).log10()
}
