//! Against diffusers' classes, by `tests/reference/schedulers.py`.

use std::fs;

use fixtures::{TOLERANCE, json, relative_error};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::{Multistep, Schedule, Scheduler, Solver};
use crate::ddim::{Ddim, Step};
use crate::load::Bundle;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

fn tensor(value: &Value) -> Tensor {
    Tensor::from_slice(&numbers(value)).to_kind(Kind::Float).view([1, -1, 1, 1])
}

fn load(config: &str, scheduler: Scheduler) -> Result<Multistep, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("scheduler")).unwrap();
    fs::write(folder.path().join("scheduler/scheduler_config.json"), config).unwrap();
    let bundle = Bundle::open(folder.path()).unwrap();
    Multistep::load(&bundle, &Ddim::load(&bundle).unwrap(), scheduler).map_err(|error| error.to_string())
}

/// What stands for the UNet.
fn output(latents: &Tensor, step: &Step) -> Tensor {
    (latents + step.timestep as f64 / 100.0).sin()
}

#[test]
fn steps_are_those_of_diffusers() {
    let cases = json("schedulers.json");
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let scheduler = if case["scheduler"] == "unipc" { Scheduler::UniPc } else { Scheduler::DpmPp2m };
        let multistep = load(&case["config"].to_string(), scheduler).unwrap();
        for run in case["runs"].as_array().unwrap() {
            let timesteps = numbers(&run["timesteps"]);
            let Schedule { steps, solver } = multistep.schedule(timesteps.len() as u32);
            let what = format!("{} {} {}", case["name"], case["scheduler"], steps.len());
            assert_eq!(steps.iter().map(|step| step.timestep as f64).collect::<Vec<_>>(), timesteps, "{what}");
            let (mut solver, mut latents) = (solver.unwrap(), tensor(&case["start"]));
            for (i, (step, expected)) in steps.iter().zip(run["latents"].as_array().unwrap()).enumerate() {
                latents = solver.next(&latents, step.original(&latents, &output(&latents, step)));
                let error = relative_error(&latents, &tensor(expected));
                assert!(error < TOLERANCE, "{what}, step {i}: relative error {error:.1e}");
            }
        }
    }
}

/// Windows that each have a memory of their own, and are moved apart, come on average where one canvas comes that has
/// their averages.
#[test]
fn a_canvas_steps_as_the_mean_of_its_windows() {
    let config = r#"{"prediction_type":"v_prediction","timestep_spacing":"trailing","rescale_betas_zero_snr":true}"#;
    for scheduler in [Scheduler::UniPc, Scheduler::DpmPp2m] {
        let multistep = load(config, scheduler).unwrap();
        let Schedule { steps, solver } = multistep.schedule(8);
        let mut canvas_solver = solver.unwrap();
        let mut solvers: Vec<Solver> = (0..4).map(|_| multistep.schedule(8).solver.unwrap()).collect();
        let draw = |seed: u64, factor: f64| libtorch::randn(seed, &[4, 4, 3, 3]).unwrap() * factor;
        let mut windows = draw(1, 1.0);
        let mean = |windows: &Tensor| windows.mean_dim(0, true, Kind::Float);
        let mut canvas = mean(&windows);
        for (i, step) in steps.iter().enumerate() {
            let moves = if i < 5 { draw(10 + i as u64, 0.3) } else { Tensor::zeros_like(&windows) };
            let moved = &windows + &moves;
            let outputs = output(&moved, step);
            let canvas_moved = &canvas + mean(&moves);
            canvas = canvas_solver.next(&canvas_moved, step.original(&canvas_moved, &mean(&outputs)));
            let next: Vec<Tensor> = (0..4)
                .map(|w| {
                    let [x, output] = [&moved, &outputs].map(|tensor| tensor.narrow(0, w, 1));
                    solvers[w as usize].next(&x, step.original(&x, &output))
                })
                .collect();
            windows = Tensor::cat(&next, 0);
            let error = relative_error(&canvas, &mean(&windows));
            assert!(error < 1e-5, "{scheduler:?}, step {i}: {error:.1e}");
        }
    }
}

/// What moves the latents before a step is not undone by the corrector of that step.
#[test]
fn what_moves_latents_stays() {
    for scheduler in [Scheduler::UniPc, Scheduler::DpmPp2m] {
        let multistep = load(r#"{"prediction_type":"v_prediction","timestep_spacing":"trailing"}"#, scheduler).unwrap();
        let end = |shift: f64| {
            let Schedule { steps, solver } = multistep.schedule(4);
            let (mut solver, mut latents) = (solver.unwrap(), Tensor::ones([1, 1, 1, 1], (Kind::Float, Device::Cpu)));
            for (i, _) in steps.iter().enumerate().take(3) {
                let moved = if i == 2 { &latents + shift } else { latents };
                // The prediction stays, so that only the latents tell of it.
                latents = solver.next(&moved, Tensor::full_like(&moved, 0.5));
            }
            latents.double_value(&[0, 0, 0, 0])
        };
        let carried = end(1.0) - end(0.0);
        let Schedule { steps, .. } = multistep.schedule(4);
        let [before, after] = [steps[2].alpha, steps[3].alpha].map(|alpha| (1.0 - alpha).sqrt());
        assert!((carried - after / before).abs() < 1e-5, "{scheduler:?}: {carried}");
    }
}

#[test]
fn what_a_file_asks_for_and_is_not_supported_is_named() {
    for (config, scheduler, says) in [
        (r#"{"use_karras_sigmas":true,"solver_order":3}"#, Scheduler::UniPc, "`solver_order` is `3`"),
        (r#"{"use_karras_sigmas":true,"solver_order":3}"#, Scheduler::DpmPp2m, "`use_karras_sigmas` is `true`"),
        (r#"{"disable_corrector":[0]}"#, Scheduler::UniPc, "`disable_corrector` is `[0]`"),
        (r#"{"algorithm_type":"sde-dpmsolver++"}"#, Scheduler::DpmPp2m, "`\"sde-dpmsolver++\"`"),
        (r#"{"final_sigmas_type":"half"}"#, Scheduler::DpmPp2m, "`half`"),
    ] {
        let error = load(config, scheduler).err().unwrap();
        assert!(error.contains(says) && error.contains("scheduler/scheduler_config.json"), "{error}");
    }
    assert!(load(r#"{"disable_corrector":[0],"predict_x0":false}"#, Scheduler::DpmPp2m).is_ok());
    assert!(load(r#"{"algorithm_type":"sde-dpmsolver++"}"#, Scheduler::UniPc).is_ok());
}
