//! Networks, gradients and pictures against the fixtures of the Python reference, which the variable `FIXTURES` names.

use anyhow::{Result, bail};
use clap::Args;
use fixtures::{BUNDLES, Cases, bundle, relative_error};
use panorama::{Blend, Checkpointing, Engine, Limits, Picture, Scheduler, Settings, Sources, Stage, SyncMode};
use sd2::Sd2;
use sd2::unet::{Text, TextKeys, Time};
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::place;
use crate::record::Records;

/// Limits of relative errors in f32, as in the tests: of networks, and of the last latents of a panorama.
const MAX_ERROR: f64 = 1e-4;
const MAX_LATENT_ERROR: f64 = 3e-4;

/// The least share of bytes of a picture within 1.
const MIN_SHARE: f64 = 0.9999;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: place::Options,
    /// Fail where an error is above that which tests allow in f32.
    #[arg(long)]
    strict: bool,
    /// At most this number of panoramas of a bundle.
    #[arg(long, default_value_t = usize::MAX)]
    cases: usize,
}

/// The largest errors of a bundle.
#[derive(Default)]
struct Errors {
    text_encoder: f64,
    unet: f64,
    decoder: f64,
    perceptual: f64,
    latents: f64,
    /// The least share of bytes within 1, and the least PSNR in dB.
    share: f64,
    psnr: f64,
}

pub(crate) fn run(options: &Options, records: &Records) -> Result<()> {
    let placement = options.place.place()?;
    let mut broken = Vec::new();
    for name in BUNDLES {
        let sd2 = Sd2::load(&bundle(name), placement)?;
        let cases = Cases::of(name);
        let mut errors = networks(&sd2, &cases);
        pictures(&mut Engine::new(sd2, 1), &cases, options.cases, &mut errors)?;
        records.add(&json!({
            "record": "check",
            "bundle": name,
            "place": options.place.describe(&placement),
            "text_encoder": errors.text_encoder,
            "unet": errors.unet,
            "decoder": errors.decoder,
            "perceptual": errors.perceptual,
            "latents": errors.latents,
            "share": errors.share,
            "psnr": errors.psnr,
        }))?;
        let of_networks = [errors.text_encoder, errors.unet, errors.decoder, errors.perceptual];
        let exact = of_networks.iter().all(|error| *error < MAX_ERROR)
            && errors.latents < MAX_LATENT_ERROR
            && errors.share >= MIN_SHARE;
        if !exact {
            broken.push(name);
        }
    }
    if options.strict && !broken.is_empty() {
        bail!("not exact: {}", broken.join(", "));
    }
    Ok(())
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

/// The larger of an error and that of a tensor, on whatever device; not a number if that one is not finite.
fn worst(error: f64, found: &Tensor, expected: &Tensor) -> f64 {
    let found = relative_error(&found.to_device(Device::Cpu), expected);
    if found.is_nan() { found } else { error.max(found) }
}

/// Every network alone.
fn networks(sd2: &Sd2, cases: &Cases) -> Errors {
    let device = sd2.placement.device;
    let on_device = |case: &Value, field: &str| cases.tensor(case, field).to_device(device);
    let mut errors = Errors { share: 1.0, psnr: f64::INFINITY, ..Errors::default() };
    for case in cases.list("text_encoder") {
        let embedding = sd2.text_encoder.forward(&integers(&case["ids"]));
        errors.text_encoder = worst(errors.text_encoder, &embedding, cases.tensor(case, "embedding"));
    }
    for case in cases.list("unet") {
        let time = sd2.unet.time_table(&integers(&case["timesteps"]));
        let texts: Vec<TextKeys> =
            on_device(case, "embeddings").split(1, 0).iter().map(|text| sd2.unet.text_keys(text)).collect();
        let output = sd2.unet.forward(
            &on_device(case, "sample"),
            &Time::of_batch(&[(&time, 0), (&time, 1)]),
            &Text::of_batch(&[vec![&texts[0], &texts[1]]]),
        );
        errors.unet = worst(errors.unet, &output, cases.tensor(case, "output"));
    }
    for case in cases.list("vae_decoder") {
        let picture = sd2.decoder.forward(&on_device(case, "latent"));
        errors.decoder = worst(errors.decoder, &picture, cases.tensor(case, "output"));
    }
    for case in cases.list("lpips") {
        let target = sd2.lpips.features(&on_device(case, "target"));
        let gradient = sd2.lpips.gradient(&on_device(case, "picture"), &target);
        errors.perceptual = worst(errors.perceptual, &gradient, cases.tensor(case, "gradient"));
    }
    errors
}

/// The first panoramas, in batches of all their windows.
fn pictures(engine: &mut Engine, cases: &Cases, count: usize, errors: &mut Errors) -> Result<()> {
    let limits = Limits { denoise: 26, synchronise: 12, checkpointing: Checkpointing::Off, ..Limits::default() };
    for case in cases.list("panoramas").iter().take(count) {
        let mut panorama = engine.begin(&settings(&case["parameters"]))?;
        let mut picture = None;
        while let Some(stage) = panorama.stage() {
            if stage == Stage::Decode {
                errors.latents = worst(errors.latents, panorama.latents(), cases.tensor(case, "final_latent"));
            }
            let tasks = panorama.take(limits.of(stage));
            for outcome in engine.compute(&tasks, limits) {
                picture = panorama.put(outcome);
            }
        }
        let Some(picture) = picture else { bail!("a panorama ended without its picture") };
        compare(&picture, cases.tensor(case, "picture"), errors)?;
    }
    Ok(())
}

fn compare(picture: &Picture, expected: &Tensor, errors: &mut Errors) -> Result<()> {
    let expected = Vec::<u8>::try_from(expected.flatten(0, -1))?;
    let close = std::iter::zip(&picture.rgb, &expected).filter(|(a, b)| a.abs_diff(**b) <= 1).count();
    errors.share = errors.share.min(close as f64 / expected.len() as f64);
    errors.psnr = errors.psnr.min(psnr(&picture.rgb, &expected));
    Ok(())
}

/// Of bytes, in dB; infinite if they are equal.
pub(crate) fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = std::iter::zip(a, b).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) * a.len() as f64 / squares).log10()
}

fn settings(parameters: &Value) -> Settings {
    let text = |key: &str| parameters[key].as_str().unwrap_or_default().to_owned();
    let integer = |key: &str| parameters[key].as_u64().unwrap_or_default();
    let number = |key: &str| parameters[key].as_f64().unwrap_or_default();
    Settings {
        prompt: text("prompt"),
        negative_prompt: text("negative_prompt"),
        width: integer("width") as u32,
        height: integer("height") as u32,
        guidance_scale: number("guidance_scale"),
        sync_weight: number("sync_weight"),
        sync_decay_rate: number("sync_decay_rate"),
        sync_freq: integer("sync_freq"),
        sync_threshold: integer("sync_threshold") as u32,
        num_inference_steps: integer("num_inference_steps") as u32,
        stride: integer("stride") as u32,
        seed: integer("seed"),
        loop_closure: parameters["loop_closure"].as_bool().unwrap_or_default(),
        blend: Blend::Even,
        seamless: false,
        sync_mode: SyncMode::Windows,
        scheduler: Scheduler::Ddim,
        sources: Sources::default(),
    }
}
