//! The gradient of the synchronisation against the Python reference, properties of batches, and numbers out of range.

use std::iter::zip;
use std::ops::ControlFlow;
use std::rc::Rc;

use fixtures::{BUNDLES, Cases, Copy, F32, assert_close, assert_within, bundle};
use geometry::Ends;
use sd2::schedulers::Scheduler;
use sd2::{Bundle, Checkpointing, Placement, Sd2};
use tch::{Kind, Tensor};

use super::Engine;
use crate::limits::Limits;
use crate::range::{Network, explain};
use crate::settings::{Blend, Settings, SyncMode};
use crate::sources::Sources;
use crate::task::{Branch, Conditions, Operation, Outcome, Stage, Task};

/// One task for every case: with its own time, text, guidance and target.
fn tasks(engine: &Engine, cases: &Cases) -> Vec<(Task, Tensor)> {
    let task = |case: &serde_json::Value| {
        let sd2 = engine.model();
        let steps = sd2.ddim.schedule(case["num_inference_steps"].as_u64().unwrap() as u32);
        let timesteps: Vec<i64> = steps.iter().map(|step| step.timestep).collect();
        let step = timesteps.iter().position(|t| Some(*t) == case["timestep"].as_i64()).unwrap();
        let embeddings = cases.tensor(case, "embeddings");
        let layout = sd2.geometry().layout((1, 1), 1, Ends::Open);
        let branch = |text| Branch { texts: vec![Rc::new(sd2.unet.text_keys(text))], layout };
        let conditions = Rc::new(Conditions {
            branches: embeddings.split(1, 0).iter().map(branch).collect(),
            guidance: case["guidance_scale"].as_f64().unwrap(),
            time: sd2.unet.time_table(&timesteps),
            steps,
        });
        let target = Rc::new(sd2.lpips.features(&(cases.tensor(case, "target") * 2.0 - 1.0)));
        let latents = cases.tensor(case, "latent").shallow_clone();
        let operation = Operation::Synchronise { window: 0, target };
        let task = Task { latents, column: 0, conditions, step, operation };
        (task, cases.tensor(case, "gradient").shallow_clone())
    };
    cases.list("sync_gradient").iter().map(task).collect()
}

fn gradients(engine: &Engine, tasks: &[Task], checkpointing: Checkpointing) -> Vec<Tensor> {
    let gradient = |outcome| match outcome {
        Outcome::Gradient { gradient, .. } => Some(gradient),
        _ => None,
    };
    let limits = Limits { checkpointing, ..Limits::default() };
    engine.compute(tasks, limits).into_iter().filter_map(gradient).collect()
}

#[test]
fn gradients_alone_and_in_one_batch() {
    for name in BUNDLES {
        let engine = Engine::new(Sd2::load(&bundle(name), F32).unwrap(), 1);
        let (tasks, expected): (Vec<Task>, Vec<Tensor>) = tasks(&engine, &Cases::of(name)).into_iter().unzip();
        assert!(tasks.iter().all(|task| task.fits_beside(&tasks[0])), "all go in one batch");
        for checkpointing in [Checkpointing::Off, Checkpointing::On] {
            for (task, expected) in tasks.chunks(1).zip(&expected) {
                assert_close(&format!("{name} alone"), &gradients(&engine, task, checkpointing)[0], expected);
            }
            let together = gradients(&engine, &tasks, checkpointing);
            assert_close(&format!("{name} together"), &Tensor::cat(&together, 0), &Tensor::cat(&expected, 0));
        }
    }
}

/// Decoder and perceptual network in f16, all else in f32.
const NARROW: Placement = Placement { kind: Kind::Float, stream_exponent: 0, ..Placement::of_gpu_on_cpu(Kind::Half) };

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const PERCEPTUAL: &str = "perceptual/model.safetensors";

fn engine_of(copy: &Copy, placement: Placement) -> Engine {
    Engine::new(Sd2::load(&Bundle::open(copy.path()).unwrap(), placement).unwrap(), 1)
}

/// A gradient says which of its three networks made the numbers that are not finite.
#[test]
fn the_network_at_fault_is_named() {
    for (file, tensor, network) in [
        (UNET, "conv_out.bias", Network::UNet),
        (VAE, "decoder.conv_out.bias", Network::Decoder),
        (PERCEPTUAL, "features.2.bias", Network::Perceptual),
    ] {
        let copy = Copy::of("epsilon");
        copy.change(file, tensor, |numbers| numbers[0] = f32::NAN);
        for placement in [F32, NARROW] {
            let engine = engine_of(&copy, placement);
            let (tasks, _): (Vec<Task>, Vec<Tensor>) = tasks(&engine, &Cases::of("epsilon")).into_iter().unzip();
            let outcomes = engine.compute(&tasks, Limits { checkpointing: Checkpointing::Off, ..Limits::default() });
            assert_eq!(outcomes.len(), tasks.len());
            for outcome in outcomes {
                let Outcome::OutOfRange(found) = outcome else { panic!("{tensor} is not finite, and nobody noticed") };
                assert_eq!(found, network, "{tensor} {placement:?}");
            }
            let says = explain(engine.model(), network);
            let damage = format!("`{tensor}` of `{}`", file.split('/').next().unwrap());
            assert!(says.contains(&format!("the {network} are not finite")) && says.contains(&damage), "{says}");
        }
    }
}

/// What only f16 cannot hold is computed in f32: the gradients, the target, and the picture.
#[test]
fn what_leaves_the_range_of_f16_is_computed_in_f32() {
    // Norms and the lengths of features take the factor out again.
    for (file, tensors) in [
        (VAE, ["decoder.conv_in.weight", "decoder.conv_in.bias"]),
        (PERCEPTUAL, ["features.0.weight", "features.0.bias"]),
    ] {
        let copy = Copy::of("epsilon");
        for tensor in tensors {
            copy.change(file, tensor, |numbers| numbers.iter_mut().for_each(|number| *number *= 1e6));
        }
        let [exact, narrow] = [F32, NARROW].map(|placement| engine_of(&copy, placement));
        let cases = Cases::of("epsilon");
        // Their targets are of the exact engine.
        let (tasks, _): (Vec<Task>, Vec<Tensor>) = tasks(&exact, &cases).into_iter().unzip();
        let of = |engine| Tensor::cat(&gradients(engine, &tasks, Checkpointing::On), 0);
        let (found, expected) = (of(&narrow), of(&exact));
        assert_eq!(found.size()[0], cases.list("sync_gradient").len() as i64, "no gradient is left out");
        assert_within(0.05, &format!("gradients with {tensors:?}"), &found, &expected);
        assert!(narrow.model().damaged.is_empty(), "{:?}", narrow.model().damaged);

        let picture = |mut engine: Engine| {
            let (picture, _) = crate::run(&mut engine, &fog(), Limits::default(), |_| ControlFlow::Continue(()))
                .unwrap()
                .expect("nobody stopped it");
            picture.rgb
        };
        let (found, expected) = (picture(narrow), picture(exact));
        let apart: usize = zip(&found, &expected).map(|(a, b)| usize::from(a.abs_diff(*b))).sum();
        assert!(apart < 3 * found.len(), "{tensors:?}: {apart} of 255 * {}", found.len());
        assert!(expected.iter().any(|byte| byte.abs_diff(expected[0]) > 20), "a flat picture would prove nothing");
    }
}

/// A picture that is decoded in parts, with other work between them, is the same.
#[test]
fn a_picture_in_parts_is_the_same() {
    let settings = Settings { seamless: true, ..fog() };
    let mut engine = Engine::new(Sd2::load(&bundle("epsilon"), F32).unwrap(), 1);
    let strip = 1 << 12;
    let mut pictures = [0, i64::MAX].map(|kept| {
        let limits = Limits { strip, kept, ..Limits::default() };
        let mut panorama = engine.begin(&settings).unwrap();
        panorama.follow(engine.plan(&panorama, limits));
        let (mut parts, mut half_decoded) = (0, 0);
        while let Some(stage) = panorama.stage() {
            half_decoded += u64::from(panorama.is_half_decoded());
            parts += u64::from(stage == Stage::Decode);
            let tasks = panorama.take(1);
            for outcome in engine.compute(&tasks, limits) {
                if let Some(picture) = panorama.put(outcome) {
                    assert_eq!((parts, half_decoded), (panorama.plan().parts, parts - 1), "{kept} kept");
                    return (parts, picture.rgb);
                }
            }
            assert!(panorama.progress().fraction < 1.0);
        }
        panic!("no picture")
    });
    let [(whole, expected), (parts, found)] = &mut pictures;
    assert!(*whole == 1 && *parts > 10, "{parts} parts");
    assert!(found == expected);
}

/// A part whose memory ran out begins the picture again, in smaller strips.
#[test]
fn a_part_that_is_lost_begins_again() {
    let mut engine = Engine::new(Sd2::load(&bundle("epsilon"), F32).unwrap(), 1);
    let limits = |strip| Limits { strip, kept: i64::MAX, ..Limits::default() };
    let mut panorama = engine.begin(&fog()).unwrap();
    let mut decodes = 0;
    let picture = loop {
        let tasks = panorama.take(1);
        decodes += usize::from(tasks[0].stage() == Stage::Decode);
        if decodes == 5 {
            // What it computes is thrown away, as if it had failed.
            drop(engine.compute(&tasks, limits(1 << 12)));
        }
        let strip = if decodes < 5 { 1 << 12 } else { 1 << 11 };
        let outcome = engine.compute(&tasks, limits(strip)).pop().unwrap();
        if let Some(picture) = panorama.put(outcome) {
            break picture;
        }
    };
    let whole = crate::run(&mut engine, &fog(), Limits::default(), |_| ControlFlow::Continue(())).unwrap().unwrap();
    let close = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 1;
    assert!(zip(&picture.rgb, &whole.0.rgb).all(close));
}

/// A small panorama of three windows.
fn fog() -> Settings {
    Settings {
        prompt: "fog".to_owned(),
        negative_prompt: String::new(),
        width: 96,
        height: 64,
        guidance_scale: 3.0,
        sync_weight: 5.0,
        sync_decay_rate: 1.0,
        sync_freq: 1,
        sync_threshold: 1,
        num_inference_steps: 2,
        stride: 8,
        seed: 1,
        loop_closure: false,
        blend: Blend::Even,
        seamless: false,
        sync_mode: SyncMode::Windows,
        scheduler: Scheduler::Ddim,
        sources: Sources::default(),
    }
}
