//! Panoramas that are stepped as one canvas against diffusers' schedulers, by `tests/reference/canvas.py`.

use std::collections::HashMap;

use fixtures::{F32, assert_within, json, path, root};
use panorama::{Blend, Engine, Limits, Panorama, Scheduler, Settings, Sources, Stage, SyncMode};
use sd2::{Bundle, Sd2};
use serde_json::Value;
use tch::Tensor;

/// Largest relative error of the last latents. Rounding is `conditioning` of a case, at most 4e-5.
const LATENT_TOLERANCE: f64 = 1e-4;

fn settings(parameters: &Value) -> Settings {
    let text = |key: &str| parameters[key].as_str().unwrap().to_owned();
    let integer = |key: &str| parameters[key].as_u64().unwrap();
    let number = |key: &str| parameters[key].as_f64().unwrap();
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
        loop_closure: parameters["loop_closure"].as_bool().unwrap(),
        blend: Blend::Even,
        seamless: false,
        sync_mode: SyncMode::Windows,
        sources: Sources::default(),
        scheduler: match parameters["scheduler"].as_str().unwrap() {
            "unipc" => Scheduler::UniPc,
            "dpmpp_2m" => Scheduler::DpmPp2m,
            other => panic!("{other}"),
        },
    }
}

fn last_latents(engine: &Engine, mut panorama: Panorama) -> Tensor {
    let limits = Limits { denoise: 3, synchronise: 2, ..Limits::default() };
    while let Some(stage) = panorama.stage().filter(|stage| *stage != Stage::Decode) {
        for outcome in engine.compute(&panorama.take(limits.of(stage)), limits) {
            panorama.put(outcome);
        }
    }
    panorama.latents().shallow_clone()
}

/// The random bundles, and the demo model, of which every fourth row and column is kept.
#[test]
fn panoramas_stepped_as_one() {
    let tensors: HashMap<String, Tensor> =
        Tensor::read_safetensors(path("canvas.safetensors")).unwrap().into_iter().collect();
    let mut engines: HashMap<String, Engine> = HashMap::new();
    for (i, case) in json("canvas.json").as_array().unwrap().iter().enumerate() {
        let bundle = case["bundle"].as_str().unwrap();
        let demo = bundle == "demo";
        let engine = engines.entry(bundle.to_owned()).or_insert_with(|| {
            let folder = if demo { root().join("models/demo") } else { path(&format!("bundles/{bundle}")) };
            Engine::new(Sd2::load(&Bundle::open(folder).unwrap(), F32).unwrap(), 1)
        });
        let panorama = engine.begin(&settings(&case["parameters"])).unwrap();
        let latents = last_latents(engine, panorama);
        let step = if demo { 4 } else { 1 };
        let latents = latents.slice(2, None, None, step).slice(3, None, None, step);
        let what = format!("{bundle} {} {}", case["parameters"]["scheduler"], case["name"]);
        assert_within(LATENT_TOLERANCE, &what, &latents, &tensors[&format!("{i}.final_latent")]);
    }
}
