//! Errors of loading a bundle: all of them are reported at once.

use std::fs;

use fixtures::{Copy, F32, bundle};
use geometry::Geometry;
use sd2::{Bundle, Sd2, read_geometry};
use serde_json::{Value, json};

/// Why a copy of the bundle `epsilon` that was broken cannot be loaded.
fn error(copy: &Copy) -> String {
    // As the worker does it.
    let loaded =
        Bundle::open(copy.path()).and_then(|bundle| read_geometry(&bundle).and_then(|_| Sd2::load(&bundle, F32)));
    match loaded {
        Ok(_) => panic!("a broken bundle was loaded"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_contains(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn all_tensors_that_do_not_match_are_listed() {
    let copy = Copy::of("epsilon");
    let mut expected = vec!["`unet`".to_owned(), "`down_blocks.0.surprise` [2, 2] is unknown".to_owned()];
    copy.rewrite("unet/diffusion_pytorch_model.safetensors", |tensors| {
        for name in ["conv_in.weight", "mid_block.resnets.1.norm2.bias"] {
            let (shape, _) = tensors.remove(name).unwrap();
            expected.push(format!("`{name}` {shape:?} is missing"));
        }
        let (shape, _) = tensors.insert("conv_out.bias".to_owned(), (vec![3], vec![0.0; 3])).unwrap();
        expected.push(format!("`conv_out.bias` has the shape [3], not {shape:?}"));
        tensors.insert("down_blocks.0.surprise".to_owned(), (vec![2, 2], vec![0.0; 4]));
    });
    assert_contains(&error(&copy), &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn unsupported_keys_are_named() {
    let broken = [
        (
            "unet/config.json",
            r#"{"class_embed_type":"timestep","dual_cross_attention":true,"brand_new":1}"#,
            vec![
                "`class_embed_type` is `\"timestep\"`",
                "`dual_cross_attention` is `true`",
                "`brand_new` is not a supported key",
            ],
        ),
        (
            "unet/config.json",
            r#"{"down_block_types":["A"],"sample_size":0,"_class_name":"Other"}"#,
            vec!["`down_block_types`", "`sample_size` is `0`", "`_class_name` is `Other`"],
        ),
        (
            "vae/config.json",
            r#"{"latents_mean":[0.0],"act_fn":"relu"}"#,
            vec!["`latents_mean`", "`act_fn` is `\"relu\"`"],
        ),
        (
            "text_encoder/config.json",
            r#"{"hidden_act":"relu","num_attention_heads":3}"#,
            vec!["`hidden_act` is `relu`", "`num_attention_heads` 3"],
        ),
        (
            "scheduler/scheduler_config.json",
            r#"{"prediction_type":"sample","thresholding":true}"#,
            vec!["`prediction_type` is `sample`", "`thresholding`"],
        ),
        (
            "scheduler/scheduler_config.json",
            r#"{"prediction_type":"epsilon","rescale_betas_zero_snr":true}"#,
            vec!["`rescale_betas_zero_snr` needs `prediction_type` to be `v_prediction`"],
        ),
        ("perceptual/config.json", r#"{"channels":[1,2],"net":"alex"}"#, vec!["`channels`", "`net`"]),
    ];
    for (file, change, parts) in broken {
        let copy = Copy::of("epsilon");
        copy.configure(file, &serde_json::from_str(change).unwrap());
        let error = error(&copy);
        assert_contains(&error, &[file]);
        assert_contains(&error, &parts);
    }
}

#[test]
fn missing_and_broken_files_are_named() {
    for (file, says) in [
        ("unet/config.json", "`unet/config.json`"),
        ("vae/diffusion_pytorch_model.safetensors", "`vae/diffusion_pytorch_model.fp16.safetensors`"),
        ("tokenizer/merges.txt", "`tokenizer/merges.txt`"),
        ("perceptual/model.safetensors", "`perceptual/model.safetensors`"),
    ] {
        let copy = Copy::of("epsilon");
        fs::remove_file(copy.at(file)).unwrap();
        assert_contains(&error(&copy), &[says]);
    }
    for (file, says) in [
        ("unet/diffusion_pytorch_model.safetensors", "`unet/diffusion_pytorch_model.safetensors` is "),
        ("unet/config.json", "`unet/config.json` is "),
        ("tokenizer/vocab.json", "`tokenizer/vocab.json` is "),
    ] {
        for content in ["", "{", "neither JSON nor safetensors"] {
            let copy = Copy::of("epsilon");
            fs::write(copy.at(file), content).unwrap();
            assert_contains(&error(&copy), &[says]);
        }
    }
    assert!(Bundle::open("no/such/folder").unwrap_err().to_string().contains("no/such/folder"));
}

/// How a copy of a bundle is spoilt.
type Change = Box<dyn Fn(&Copy)>;

/// Folders as people have them that cannot be used: each is told in one line that names the file.
#[test]
fn what_cannot_be_used_is_one_sentence() {
    let configured = |file: &'static str, change: Value| move |copy: &Copy| copy.configure(file, &change);
    let renamed = |prefix: &'static str| {
        move |copy: &Copy| {
            copy.rewrite("unet/diffusion_pytorch_model.safetensors", |tensors| {
                let old = std::mem::take(tensors);
                tensors.extend(old.into_iter().map(|(name, numbers)| (format!("{prefix}{name}"), numbers)));
            });
        }
    };
    let cases: [(&str, Change, &str); 11] = [
        ("`unet/config.json`", Box::new(configured("unet/config.json", json!({"sample_size": "16"}))), "`\"16\"`"),
        ("`unet/config.json`", Box::new(configured("unet/config.json", json!({"sample_size": null}))), "`sample_size`"),
        ("`unet/config.json`", Box::new(configured("unet/config.json", json!({"sample_size": [16, 32]}))), "square"),
        (
            "`unet/config.json`",
            Box::new(configured("unet/config.json", json!({"addition_embed_type": "text_time", "new": 1}))),
            "Stable Diffusion XL",
        ),
        ("`unet/config.json`", Box::new(configured("unet/config.json", json!({"brand_new": 1}))), "`brand_new`"),
        (
            "`unet/diffusion_pytorch_model.safetensors`",
            Box::new(renamed("module.")),
            "names that all begin with `module.`",
        ),
        ("`unet/diffusion_pytorch_model.safetensors`", Box::new(renamed("_orig_mod.")), "`_orig_mod.`"),
        (
            "`unet/diffusion_pytorch_model.safetensors`",
            Box::new(renamed("model.diffusion_model.")),
            "whole checkpoint in one file",
        ),
        (
            "`model_index.json`",
            Box::new(|copy: &Copy| {
                let index = json!({"_class_name": "BrandNewPipeline", "transformer": ["diffusers", "X"], "unet": null});
                copy.configure("model_index.json", &index);
            }),
            "`BrandNewPipeline`, which draws with a transformer",
        ),
        (
            "x-Q4.gguf`",
            Box::new(|copy: &Copy| {
                fs::remove_dir_all(copy.path()).unwrap();
                fs::create_dir(copy.path()).unwrap();
                fs::write(copy.at("x-Q4.gguf"), "GGUF").unwrap();
            }),
            "GGUF",
        ),
        (
            "",
            Box::new(|copy: &Copy| {
                fs::remove_dir_all(copy.path()).unwrap();
                fs::create_dir(copy.path()).unwrap();
            }),
            "is an empty folder",
        ),
    ];
    for (file, spoil, says) in cases {
        let copy = Copy::of("epsilon");
        spoil(&copy);
        let error = error(&copy);
        assert_contains(&error, &[file, says]);
        assert_eq!(error.lines().count(), 1, "{error}");
        // `doctor` says the same without loading it.
        let checked = Bundle::open(copy.path()).and_then(|bundle| Sd2::check(&bundle)).unwrap_err().to_string();
        assert_eq!(checked, error);
    }
}

/// A truncated safetensors file is an error when it is opened, and not while its tensors are read.
#[test]
fn a_truncated_file_is_an_error() {
    let copy = Copy::of("epsilon");
    let file = copy.at("unet/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert_contains(
        &error(&copy),
        &["`unet/diffusion_pytorch_model.safetensors` is cut short: it has 185140 bytes of 370280"],
    );
}

#[test]
fn the_geometry_is_read_without_the_weights() {
    let copy = Copy::of("epsilon");
    fs::remove_file(copy.at("unet/diffusion_pytorch_model.safetensors")).unwrap();
    let bundle = Bundle::open(copy.path()).unwrap();
    assert_eq!(read_geometry(&bundle).unwrap(), Geometry { window: 16, vae_factor: 4 });
}

/// The version of a model depends on its content, not on its folder.
#[test]
fn the_fingerprint_depends_on_the_content() {
    let copy = Copy::of("epsilon");
    let of = |copy: &Copy| Bundle::open(copy.path()).unwrap().fingerprint(None).unwrap();
    assert_eq!(of(&copy), bundle("epsilon").fingerprint(None).unwrap());
    copy.configure("vae/config.json", &json!({"scaling_factor": 0.5}));
    assert_ne!(of(&copy), bundle("epsilon").fingerprint(None).unwrap());
}
