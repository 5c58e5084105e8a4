//! From the input of a job to the settings of its panorama.

use panorama::{Blend, Scheduler, Settings, Sources, SyncMode};
use protocol::Input;

use crate::pictures::Pictures;

/// The settings of an input.
///
/// # Errors
/// If it names a picture that did not come with it.
pub(crate) fn settings(input: Input, pictures: &Pictures) -> Result<Settings, String> {
    let sources = Sources {
        prompts: input.prompts,
        anchor_image: pictures.of("anchor_image", input.anchor_image.is_some())?,
        image: pictures.of("image", input.image.is_some())?,
        image_left: input.image_left,
        strength: input.strength.unwrap_or(0.0),
    };
    Ok(Settings {
        prompt: input.prompt,
        negative_prompt: input.negative_prompt,
        width: input.width,
        height: input.height,
        guidance_scale: input.guidance_scale,
        sync_weight: input.sync_weight,
        sync_decay_rate: input.sync_decay_rate,
        sync_freq: input.sync_freq,
        sync_threshold: input.sync_threshold,
        num_inference_steps: input.num_inference_steps,
        stride: input.stride,
        seed: input.seed,
        loop_closure: input.loop_closure,
        blend: match input.blend {
            protocol::Blend::Even => Blend::Even,
            protocol::Blend::Smooth => Blend::Smooth,
        },
        seamless: input.seamless,
        sync_mode: match input.sync_mode {
            protocol::SyncMode::Windows => SyncMode::Windows,
            protocol::SyncMode::Canvas => SyncMode::Canvas,
        },
        scheduler: match input.scheduler {
            protocol::Scheduler::Ddim => Scheduler::Ddim,
            protocol::Scheduler::UniPc => Scheduler::UniPc,
            protocol::Scheduler::DpmPp2m => Scheduler::DpmPp2m,
        },
        sources,
    })
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use fixtures::{BUNDLES, Cases, F32, bundle};
    use panorama::{Engine, Limits, Picture, Work};
    use sd2::Sd2;
    use serde_json::{Map, Value, json};
    use tch::Tensor;

    use super::*;

    /// What comes after the thirteen inputs, at its defaults, and with a value of its own.
    fn beyond() -> [(&'static str, Value, Value); 9] {
        [
            ("blend", json!("even"), json!("smooth")),
            ("seamless", json!(false), json!(true)),
            ("sync_mode", json!("windows"), json!("canvas")),
            ("scheduler", json!("ddim"), json!("dpmpp_2m")),
            ("prompts", json!([]), json!(["by day", "at night"])),
            ("anchor_image", Value::Null, json!("https://example.com/anchor.png")),
            ("image", Value::Null, json!("https://example.com/image.png")),
            ("image_left", Value::Null, json!(64)),
            ("strength", Value::Null, json!(0.5)),
        ]
    }

    fn draw(engine: &mut Engine, input: Value) -> (Picture, Work) {
        engine.forget_texts();
        let input: Input = serde_json::from_value(input).unwrap();
        let limits = Limits { denoise: 4, synchronise: 2, ..Limits::default() };
        let settings = settings(input, &Pictures::default()).unwrap();
        panorama::run(engine, &settings, limits, |_| ControlFlow::Continue(())).unwrap().unwrap()
    }

    fn assert_close(what: &str, picture: &Picture, expected: &Tensor) {
        let expected = Vec::<u8>::try_from(expected.flatten(0, -1)).unwrap();
        assert_eq!(picture.rgb.len(), expected.len());
        let close = picture.rgb.iter().zip(&expected).filter(|(a, b)| a.abs_diff(**b) <= 1).count();
        assert!(close as f64 >= 0.9999 * expected.len() as f64, "{what}: {close} of {} bytes", expected.len());
    }

    /// Every picture of the original is drawn, with the same work, whether what comes after its inputs is left out or
    /// at its defaults.
    #[test]
    fn the_default_is_the_original() {
        for name in BUNDLES {
            let cases = Cases::of(name);
            let mut engine = Engine::new(Sd2::load(&bundle(name), F32).unwrap(), 1);
            for case in cases.list("panoramas") {
                let what = format!("{name} {}", case["name"]);
                let absent = case["parameters"].as_object().unwrap().clone();
                let mut given = absent.clone();
                given.extend(beyond().into_iter().map(|(input, default, _)| (input.to_owned(), default)));
                let (picture, work) = draw(&mut engine, absent.into());
                assert_close(&what, &picture, cases.tensor(case, "picture"));
                let (same, same_work) = draw(&mut engine, given.into());
                assert!(same == picture && same_work == work, "{what}");
            }
        }
    }

    /// The list above misses none.
    #[test]
    fn every_input_beyond_the_original_is_listed() {
        let cases = Cases::of(BUNDLES[0]);
        let hosted = cases.list("panoramas")[0]["parameters"].as_object().unwrap();
        let mut other: Map<String, Value> = hosted.clone();
        other.extend(beyond().into_iter().map(|(input, _, value)| (input.to_owned(), value)));
        let input: Input = serde_json::from_value(other.clone().into()).unwrap();
        assert_eq!(serde_json::to_value(input).unwrap(), Value::from(other));
    }
}
