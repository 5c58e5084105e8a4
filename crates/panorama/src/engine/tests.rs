//! The gradient of the synchronisation against the Python reference, and properties of batches.

use std::rc::Rc;

use fixtures::{BUNDLES, Cases, F32, assert_close, bundle};
use sd2::{Checkpointing, Sd2};
use tch::Tensor;

use super::Engine;
use crate::limits::Limits;
use crate::task::{Conditions, Operation, Outcome, Task};

/// One task for every case: with its own time, text, guidance and target.
fn tasks(engine: &Engine, cases: &Cases) -> Vec<(Task, Tensor)> {
    let task = |case: &serde_json::Value| {
        let sd2 = engine.model();
        let steps = sd2.ddim.schedule(case["num_inference_steps"].as_u64().unwrap() as u32);
        let timesteps: Vec<i64> = steps.iter().map(|step| step.timestep).collect();
        let step = timesteps.iter().position(|t| Some(*t) == case["timestep"].as_i64()).unwrap();
        let embeddings = cases.tensor(case, "embeddings");
        let conditions = Rc::new(Conditions {
            branches: embeddings.split(1, 0).iter().map(|text| Rc::new(sd2.unet.text_keys(text))).collect(),
            guidance: case["guidance_scale"].as_f64().unwrap(),
            time: sd2.unet.time_table(&timesteps),
            steps,
        });
        let target = Rc::new(sd2.lpips.features(&(cases.tensor(case, "target") * 2.0 - 1.0)));
        let latents = cases.tensor(case, "latent").shallow_clone();
        let task = Task { latents, conditions, step, operation: Operation::Synchronise { window: 0, target } };
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
