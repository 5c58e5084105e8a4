//! Every network against diffusers, transformers and lpips, with the fixtures of `tests/reference`.

use fixtures::{Cases, F32, NETWORKS, assert_close, bundle, json, root};
use sd2::tokenizer::Tokenizer;
use sd2::unet::{Text, TextKeys, Time};
use sd2::vae::Encoder;
use sd2::{Bundle, Sd2};
use serde_json::Value;
use tch::Tensor;

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
}

#[test]
fn token_ids() {
    for (name, texts) in json("tokens.json").as_object().unwrap() {
        let bundle = match name.as_str() {
            "demo" => Bundle::open(root().join("models/demo")).unwrap(),
            name => bundle(name),
        };
        let tokenizer = Tokenizer::load(&bundle).unwrap();
        for case in texts.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text), integers(&case["ids"]), "{name}: {text:?}");
        }
    }
}

#[test]
fn text_embeddings() {
    for name in NETWORKS {
        let (sd2, cases) = (Sd2::load(&bundle(name), F32).unwrap(), Cases::of(name));
        for case in cases.list("text_encoder") {
            let embedding = sd2.text_encoder.forward(&integers(&case["ids"]));
            assert_close(&format!("{name} {}", case["text"]), &embedding, cases.tensor(case, "embedding"));
        }
    }
}

/// Two samples, each with its own time and text, in one batch and one by one.
#[test]
fn unet_outputs() {
    for name in NETWORKS {
        let (sd2, cases) = (Sd2::load(&bundle(name), F32).unwrap(), Cases::of(name));
        for case in cases.list("unet") {
            let (sample, output) = (cases.tensor(case, "sample"), cases.tensor(case, "output"));
            let time = sd2.unet.time_table(&integers(&case["timesteps"]));
            let texts: Vec<TextKeys> =
                cases.tensor(case, "embeddings").split(1, 0).iter().map(|text| sd2.unet.text_keys(text)).collect();
            let both = sd2.unet.forward(
                sample,
                &Time::of_batch(&[(&time, 0), (&time, 1)]),
                &Text::of_batch(&[vec![&texts[0], &texts[1]]]),
            );
            assert_close(&format!("{name} {:?}", sample.size()), &both, output);
            for i in 0..2 {
                let one = sd2.unet.forward(
                    &sample.narrow(0, i, 1),
                    &Time::of_batch(&[(&time, i)]),
                    &Text::of_batch(&[vec![&texts[i as usize]]]),
                );
                assert_close(&format!("{name} alone"), &one, &output.narrow(0, i, 1));
            }
        }
    }
}

/// Guidance branches that share what is computed before the text match those computed one by one, also where windows
/// have different texts and times.
#[test]
fn unet_branches() {
    for name in NETWORKS {
        let (sd2, cases) = (Sd2::load(&bundle(name), F32).unwrap(), Cases::of(name));
        let case = &cases.list("unet")[0];
        let sample = cases.tensor(case, "sample");
        let time = sd2.unet.time_table(&[981, 41]);
        let texts: Vec<TextKeys> =
            cases.tensor(case, "embeddings").split(1, 0).iter().map(|text| sd2.unet.text_keys(text)).collect();
        let (a, b) = (&texts[0], &texts[1]);
        for rows in [[0, 0], [0, 1]] {
            for branches in [[[a, a], [b, b]], [[a, b], [b, a]]] {
                let together = sd2.unet.forward(
                    sample,
                    &Time::of_batch(&rows.map(|row| (&time, row))),
                    &Text::of_batch(&branches.map(|texts| texts.to_vec())),
                );
                let mut alone = Vec::new();
                for texts in branches {
                    for window in 0..2 {
                        alone.push(sd2.unet.forward(
                            &sample.narrow(0, window, 1),
                            &Time::of_batch(&[(&time, rows[window as usize])]),
                            &Text::of_batch(&[vec![texts[window as usize]]]),
                        ));
                    }
                }
                assert_close(&format!("{name} branches"), &together, &Tensor::cat(&alone, 0));
            }
        }
    }
}

#[test]
fn decoded_pictures() {
    for name in NETWORKS {
        let (sd2, cases) = (Sd2::load(&bundle(name), F32).unwrap(), Cases::of(name));
        for case in cases.list("vae_decoder") {
            let picture = sd2.decoder.forward(cases.tensor(case, "latent"));
            assert_close(&format!("{name} {:?}", picture.size()), &picture, cases.tensor(case, "output"));
        }
    }
}

#[test]
fn encoded_pictures() {
    let cases = Cases::encoder();
    for case in cases.list("vae_encoder") {
        let bundle = match case["bundle"].as_str().unwrap() {
            "demo" => Bundle::open(root().join("models/demo")).unwrap(),
            name => bundle(name),
        };
        let latents = Encoder::load(&bundle, F32).unwrap().latents(cases.tensor(case, "picture"), i64::MAX);
        assert_close(&format!("{}", case["bundle"]), &latents, cases.tensor(case, "latents"));
    }
}

#[test]
fn gradients_of_perceptual_distances() {
    for name in NETWORKS {
        let (sd2, cases) = (Sd2::load(&bundle(name), F32).unwrap(), Cases::of(name));
        for case in cases.list("lpips") {
            let picture = cases.tensor(case, "picture");
            let target = sd2.lpips.features(cases.tensor(case, "target"));
            let gradient = sd2.lpips.gradient(picture, &target);
            assert_close(&format!("{name} gradient"), &gradient, cases.tensor(case, "gradient"));
        }
    }
}

#[test]
fn noise_schedules() {
    for name in NETWORKS {
        let (sd2, cases) = (Sd2::load(&bundle(name), F32).unwrap(), Cases::of(name));
        for case in cases.list("timesteps") {
            let schedule = sd2.ddim.schedule(case["num_inference_steps"].as_u64().unwrap() as u32);
            let timesteps: Vec<i64> = schedule.iter().map(|step| step.timestep).collect();
            assert_eq!(timesteps, integers(&case["timesteps"]), "{name}");
        }
        for case in cases.list("ddim_step") {
            let schedule = sd2.ddim.schedule(case["num_inference_steps"].as_u64().unwrap() as u32);
            let timestep = case["timestep"].as_i64().unwrap();
            let step = schedule.iter().find(|step| step.timestep == timestep).unwrap();
            let (sample, output) = (cases.tensor(case, "sample"), cases.tensor(case, "model_output"));
            assert_close(&format!("{name} next"), &step.next(sample, output), cases.tensor(case, "prev_sample"));
            let original = step.original(sample, output);
            assert_close(&format!("{name} original"), &original, cases.tensor(case, "pred_original_sample"));
        }
    }
}
