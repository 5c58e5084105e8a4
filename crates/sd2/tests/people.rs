//! Models as people have them, against what transformers, diffusers and peft make of the same files.

use std::fs;
use std::path::Path;

use fixtures::{F32, assert_close, bundle, json, path};
use sd2::ddim::Ddim;
use sd2::tokenizer::{Tokenizer, Words};
use sd2::{Bundle, Sd2};
use serde_json::Value;
use tch::{Kind, Tensor};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
}

/// A folder with one part of its own, and nothing else.
fn alone(part: &str, from: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(part)).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), folder.path().join(part).join(file.file_name())).unwrap();
    }
    folder
}

#[test]
fn tokenizers_of_all_ages() {
    let all = json("loading/tokenizers.json");
    for case in all.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let folder = alone("tokenizer", &path(&format!("loading/tokenizers/{name}")));
        let tokenizer = Tokenizer::load(&Bundle::open(folder.path()).unwrap()).unwrap();
        for case in case["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text), integers(&case["ids"]), "{name}: {text:?}");
        }
    }
}

/// The ids of two environments, each exactly.
#[test]
fn the_words_of_two_environments() {
    let cases = json("clip-tokens.json");
    for (words, key, pad) in [(Words::Clip, "clip", 0), (Words::Hosted, "hosted", 0)] {
        let tokenizer = Tokenizer::built_in(words).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() > 300);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let mut expected = integers(&case[key]);
            expected.resize(77, pad);
            assert_eq!(tokenizer.encode(text), expected, "{key}: {text:?}");
        }
    }
}

#[test]
fn a_text_that_is_too_long_is_said() {
    for words in [Words::Clip, Words::Hosted] {
        let tokenizer = Tokenizer::built_in(words).unwrap();
        assert_eq!(tokenizer.overlong("a photo of a castle"), None);
        let long = tokenizer.overlong(&"a photo of a castle on a hill, ".repeat(30)).unwrap();
        assert_eq!((long.tokens, long.read), (270, 75));
        assert!(long.rest.starts_with("a castle on a hill, a photo"), "{}", long.rest);
        assert_eq!(tokenizer.overlong(&"x".repeat(400)).unwrap().rest.len(), 400);
    }
}

#[test]
fn schedulers_of_other_samplers() {
    for case in json("loading/schedulers.json").as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("scheduler")).unwrap();
        let config = case["config"].to_string();
        // As editors of Windows save it.
        fs::write(folder.path().join("scheduler/scheduler_config.json"), format!("\u{feff}{config}")).unwrap();
        let ddim = Ddim::load(&Bundle::open(folder.path()).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let steps = ddim.schedule(5);
        assert_eq!(steps.iter().map(|step| step.timestep).collect::<Vec<_>>(), integers(&case["timesteps"]), "{name}");
        let close = |what: &str, found: &Tensor, expected: &[f64]| {
            assert_close(&format!("{name} {what}"), found, &Tensor::from_slice(expected).to_kind(Kind::Float));
        };
        let of = |key: &str| Tensor::from_slice(&numbers(&case[key])).to_kind(Kind::Float);
        close("next", &steps[1].next(&of("sample"), &of("output")), &numbers(&case["next"]));
        close("original", &steps[1].original(&of("sample"), &of("output")), &numbers(&case["original"]));
    }
}

#[test]
fn a_scheduler_of_another_process_is_refused() {
    for (config, says) in [
        (r#"{"_class_name":"FlowMatchEulerDiscreteScheduler","shift":3.0}"#, "`FlowMatchEulerDiscreteScheduler`"),
        (r#"{"_class_name":"EulerDiscreteScheduler","prediction_type":"flow_prediction"}"#, "`flow_prediction`"),
        (r#"{"_class_name":"DDIMScheduler","brand_new":true}"#, "`brand_new`"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("scheduler")).unwrap();
        fs::write(folder.path().join("scheduler/scheduler_config.json"), config).unwrap();
        let error = Ddim::load(&Bundle::open(folder.path()).unwrap()).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// LoRA under all names gives the same networks; that they are peft's is shown weight by weight in `load/lora`.
#[test]
fn a_lora_has_many_names() {
    let compute = |bundle: &Bundle| {
        let sd2 = Sd2::load(bundle, F32).unwrap();
        let embedding = sd2.text_encoder.forward(&(0..77).collect::<Vec<_>>());
        let keys = sd2.unet.text_keys(&embedding);
        let times = sd2.unet.time_table(&[500]);
        let latents = (Tensor::arange(4 * 16 * 16, (Kind::Float, tch::Device::Cpu)) * 0.7).sin().view([1, 4, 16, 16]);
        let (time, text) = (sd2::unet::Time::of_batch(&[(&times, 0)]), sd2::unet::Text::of_batch(&[vec![&keys]]));
        (sd2.unet.forward(&latents, &time, &text), sd2.notes)
    };
    let lora = |file: &str, weight| bundle("epsilon").with_lora(path(&format!("loading/lora/{file}")), weight).unwrap();
    let (plain, _) = compute(&bundle("epsilon"));
    let (kohya, notes) = compute(&lora("kohya.safetensors", 1.0));
    assert_eq!(notes.iter().filter(|note| note.contains("lora")).count(), 0, "{notes:?}");
    let (diffusers, _) = compute(&lora("diffusers.safetensors", 1.0));
    assert!(diffusers.equal(&kohya) && !kohya.equal(&plain));
    let (nothing, _) = compute(&lora("kohya.safetensors", 0.0));
    assert_close("a LoRA of no weight", &nothing, &plain);
    let halves = lora("kohya.safetensors", 0.5).with_lora(path("loading/lora/diffusers.safetensors"), 0.5).unwrap();
    assert_close("two halves", &compute(&halves).0, &kohya);
    assert_ne!(lora("kohya.safetensors", 1.0).fingerprint(None).unwrap(), bundle("epsilon").fingerprint(None).unwrap());

    // That of another model fits nothing, and says so in a sentence or a short list.
    let other = bundle("sharded").with_lora(path("loading/lora/kohya.safetensors"), 1.0).unwrap();
    let error = Sd2::load(&other, F32).err().unwrap().to_string();
    assert!(error.contains("does not fit") && error.lines().count() < 15, "{error}");
    let error = bundle("epsilon").with_lora(path("bundles/epsilon/perceptual/model.safetensors"), 1.0).unwrap_err();
    assert!(error.to_string().contains("is not a LoRA"), "{error}");
}
