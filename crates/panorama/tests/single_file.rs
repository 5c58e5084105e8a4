//! A checkpoint in one file draws what the folder draws that it would be, synchronisation included, byte for byte.

use std::ops::ControlFlow;

use fixtures::{F32, Twins};
use panorama::{Blend, Engine, Limits, Scheduler, Settings, Sources, SyncMode};
use sd2::ddim::Prediction;
use sd2::{Bundle, Said, Sd2};
use serde_json::json;

/// Latents along a window.
const WINDOW: u32 = 16;

fn picture(bundle: &Bundle) -> Vec<u8> {
    let settings = Settings {
        prompt: "a lake at dawn, oil painting".to_owned(),
        negative_prompt: "blurry".to_owned(),
        width: 8 * (WINDOW + 8),
        height: 8 * WINDOW,
        guidance_scale: 5.0,
        sync_weight: 20.0,
        sync_decay_rate: 1.0,
        sync_freq: 1,
        sync_threshold: 1,
        num_inference_steps: 2,
        stride: 8,
        seed: 2,
        loop_closure: false,
        blend: Blend::Even,
        seamless: false,
        sync_mode: SyncMode::Windows,
        scheduler: Scheduler::Ddim,
        sources: Sources::default(),
    };
    let mut engine = Engine::new(Sd2::load(bundle, F32).unwrap(), 1);
    let drawn = panorama::run(&mut engine, &settings, Limits::default(), |_| ControlFlow::Continue(())).unwrap();
    drawn.expect("nobody stopped it").0.rgb
}

#[test]
fn one_file_draws_what_its_folder_draws() {
    // Whatever the weights.
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
    for family in ["sd1", "sd2"] {
        let twins = Twins::new(family, seed);
        twins.configure("unet/config.json", &json!({ "sample_size": WINDOW }));
        let file = twins.file(&[]);
        let mut before = Vec::new();
        for (name, prediction) in [("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::Velocity)] {
            twins.configure("scheduler/scheduler_config.json", &json!({ "prediction_type": name }));
            let said = Said { prediction: Some(prediction), window: Some(WINDOW.into()) };
            let expected = picture(&Bundle::open(twins.folder()).unwrap());
            let found = picture(&Bundle::open_with(&file, said).unwrap());
            let what = format!("{family}, {name}, seed {seed}");
            assert!(found == expected, "{what}");
            assert!(expected.iter().any(|&byte| byte != expected[0]), "{what}: the picture is flat");
            assert!(before != expected, "{what}: both forms draw the same");
            before = expected;
        }
    }
}
