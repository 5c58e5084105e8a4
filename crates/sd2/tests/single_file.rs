//! Checkpoints in one file: the same networks as those of the folder, from the same numbers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fixtures::{F32, json, path};
use geometry::Geometry;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd2::ddim::Prediction;
use sd2::tokenizer::Words;
use sd2::unet::{Text, Time};
use sd2::{Bundle, Said, Sd2, read_geometry};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

/// A tensor: its shape and its numbers.
type Numbers = (Vec<usize>, Vec<f32>);

/// A model of a family with a tenth of its width, in both layouts, from the names that diffusers' converter proved.
struct Twins {
    folder: TempDir,
    /// In the original layout.
    tensors: BTreeMap<String, Numbers>,
}

const PARTS: [(&str, &str, &str); 3] = [
    ("model.diffusion_model.", "unet", "diffusion_pytorch_model"),
    ("first_stage_model.", "vae", "diffusion_pytorch_model"),
    ("cond_stage_model.", "text_encoder", "model"),
];
/// Blocks of the text encoder that are kept.
const BLOCKS: usize = 3;

impl Twins {
    /// `family` is `sd1` or `sd2`.
    fn new(family: &str) -> Self {
        let names = json("loading/ldm-names.json")[family].clone();
        let mut seed = 7;
        let mut tensors = BTreeMap::new();
        let mut parts: BTreeMap<&str, BTreeMap<String, Numbers>> = BTreeMap::new();
        for (old, new) in names["names"].as_object().unwrap() {
            let block = old.split_once("resblocks.").or_else(|| old.split_once("encoder.layers."));
            let block = block.and_then(|(_, rest)| rest.split('.').next()?.parse::<usize>().ok());
            if block.is_some_and(|block| block >= BLOCKS) {
                continue;
            }
            let (_, part, _) = *PARTS.iter().find(|(prefix, ..)| old.starts_with(prefix)).unwrap();
            let shape: Vec<usize> = names["shapes"][old]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| small(part, n.as_u64().unwrap() as usize))
                .collect();
            let numbers = random(&shape, old.contains("norm") || old.contains("ln_"), &mut seed);
            let into = parts.entry(part).or_default();
            match new {
                Value::String(name) => _ = into.insert(name.clone(), (shape.clone(), numbers.clone())),
                Value::Array(three) => {
                    let mut third = shape.clone();
                    third[0] /= 3;
                    for (name, numbers) in three.iter().zip(numbers.chunks(numbers.len() / 3)) {
                        into.insert(name.as_str().unwrap().to_owned(), (third.clone(), numbers.to_vec()));
                    }
                }
                other => panic!("{other}"),
            }
            tensors.insert(old.clone(), (shape, numbers));
        }
        let folder = tempfile::tempdir().unwrap();
        for (_, part, stem) in PARTS {
            let dir = folder.path().join(part);
            fs::create_dir_all(&dir).unwrap();
            write(&dir.join(format!("{stem}.safetensors")), &parts[part], &[]);
        }
        configure(folder.path(), family);
        for part in ["tokenizer", "perceptual"] {
            fs::create_dir(folder.path().join(part)).unwrap();
            for file in fs::read_dir(path("bundles/epsilon").join(part)).unwrap().map(Result::unwrap) {
                fs::copy(file.path(), folder.path().join(part).join(file.file_name())).unwrap();
            }
        }
        Self { folder, tensors }
    }

    /// The file, with metadata.
    fn file(&self, metadata: &[(&str, &str)]) -> PathBuf {
        let path = self.folder.path().join("model.safetensors");
        write(&path, &self.tensors, metadata);
        path
    }

    fn bundle(&self, file: &Path, said: Said) -> Bundle {
        Bundle::open_with(file, said).unwrap().with_perceptual(self.folder.path().join("perceptual"))
    }
}

/// A size of the full model, for the small one.
fn small(part: &str, size: usize) -> usize {
    match (part, size) {
        (_, 0..=9 | 77 | 49408) => size,
        ("unet" | "text_encoder", 768) => 64,
        ("unet" | "text_encoder", 1024) => 128,
        // Of SD1 the inner width; of SD2 the three projections in one.
        ("text_encoder", 3072) => 384,
        ("vae", _) => size / 4,
        ("unet", _) => size / 10,
        (_, _) => size / 8,
    }
}

fn random(shape: &[usize], norm: bool, seed: &mut u64) -> Vec<f32> {
    let inputs: usize = shape.iter().skip(1).product();
    let scale = if shape.len() > 1 { (inputs as f32).sqrt().recip() } else { 0.1 };
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / 8_388_608.0 - 1.0
    };
    let offset = if norm && shape.len() == 1 { 1.0 } else { 0.0 };
    (0..shape.iter().product::<usize>()).map(|_| offset + scale * next()).collect()
}

fn write(path: &Path, tensors: &BTreeMap<String, Numbers>, metadata: &[(&str, &str)]) {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, numbers))| (name, shape, numbers.iter().flat_map(|n| n.to_le_bytes()).collect()))
        .collect();
    let views =
        bytes.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap()));
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
}

fn configure(folder: &Path, family: &str) {
    let second = family == "sd2";
    let put = |file: &str, value: Value| {
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, value.to_string()).unwrap();
    };
    let width = if second { 128 } else { 64 };
    put(
        "unet/config.json",
        json!({
            "_class_name": "UNet2DConditionModel", "sample_size": 64, "block_out_channels": [32, 64, 128, 128],
            "attention_head_dim": if second { json!([1, 1, 2, 2]) } else { json!(8) }, "cross_attention_dim": width,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        }),
    );
    put(
        "vae/config.json",
        json!({
            "_class_name": "AutoencoderKL", "block_out_channels": [32, 64, 128, 128], "layers_per_block": 2,
            "down_block_types": vec!["DownEncoderBlock2D"; 4], "up_block_types": vec!["UpDecoderBlock2D"; 4],
        }),
    );
    put(
        "text_encoder/config.json",
        json!({
            "vocab_size": 49408, "hidden_size": width, "intermediate_size": if second { 512 } else { 384 },
            "num_hidden_layers": BLOCKS, "num_attention_heads": width / 64, "hidden_act": if second { "gelu" } else { "quick_gelu" },
        }),
    );
    put(
        "scheduler/scheduler_config.json",
        json!({
            "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1,
        }),
    );
}

/// All that is computed of a few numbers.
fn compute(sd2: &Sd2) -> [Tensor; 3] {
    let ids: Vec<i64> = (0..77).map(|i| i * 611).collect();
    let embedding = sd2.text_encoder.forward(&ids);
    let (keys, times) = (sd2.unet.text_keys(&embedding), sd2.unet.time_table(&[500]));
    let latents = (Tensor::arange(4 * 16 * 16, (Kind::Float, tch::Device::Cpu)) * 0.7).sin().view([1, 4, 16, 16]);
    let (time, text) = (Time::of_batch(&[(&times, 0)]), Text::of_batch(&[vec![&keys]]));
    let output = sd2.unet.forward(&latents, &time, &text);
    let picture = sd2.decoder.forward(&latents);
    [embedding, output, picture]
}

#[test]
fn a_file_is_the_folder_it_would_be() {
    for family in ["sd1", "sd2"] {
        let twins = Twins::new(family);
        let folder = Bundle::open(twins.folder.path()).unwrap();
        let expected = compute(&Sd2::load(&folder, F32).unwrap());
        let file = twins.bundle(&twins.file(&[]), Said::default());
        assert_eq!(read_geometry(&file).unwrap(), Geometry { window: 64, vae_factor: 8 });
        let sd2 = Sd2::load(&file, F32).unwrap();
        assert!(sd2.notes[0].contains("predicts noise (by a probe"), "{:?}", sd2.notes);
        for (found, expected) in compute(&sd2).iter().zip(&expected) {
            assert!(expected.std(false).double_value(&[]) > 0.01, "numbers of nothing would prove nothing");
            assert!(found.equal(expected), "{family}");
        }
        assert_ne!(file.fingerprint(None).unwrap(), folder.fingerprint(None).unwrap());
    }
}

/// What was concluded.
fn predicts(sd2: &Sd2) -> Prediction {
    let velocity = sd2.notes[0].contains("predicts velocity");
    if velocity { Prediction::Velocity } else { Prediction::Epsilon }
}

/// What is said counts before the metadata, these before markers, those before the configuration beside the file.
#[test]
fn what_a_model_predicts_is_found_out() {
    let mut twins = Twins::new("sd2");
    let of = |twins: &Twins, metadata: &[(&str, &str)], said: Said| {
        let bundle = twins.bundle(&twins.file(metadata), said);
        let sd2 = Sd2::load(&bundle, F32).unwrap();
        (predicts(&sd2), read_geometry(&bundle).unwrap().window)
    };
    let said = |prediction| Said { prediction: Some(prediction), window: None };
    let (noise, velocity) = (Prediction::Epsilon, Prediction::Velocity);
    assert_eq!(of(&twins, &[], said(velocity)), (velocity, 96));
    assert_eq!(of(&twins, &[], Said { window: Some(48), ..said(velocity) }), (velocity, 48));
    assert_eq!(of(&twins, &[("modelspec.prediction_type", "v")], Said::default()), (velocity, 96));
    assert_eq!(
        of(&twins, &[("ss_v_parameterization", "True"), ("modelspec.resolution", "512x512")], Said::default()),
        (velocity, 64)
    );
    assert_eq!(of(&twins, &[("modelspec.prediction_type", "v")], said(noise)), (noise, 64));
    fs::write(twins.folder.path().join("model.yaml"), "model:\n  params:\n    parameterization: \"v\"\n").unwrap();
    assert_eq!(of(&twins, &[], Said::default()), (velocity, 96));
    assert_eq!(of(&twins, &[("modelspec.prediction_type", "epsilon")], Said::default()), (noise, 64));
    fs::remove_file(twins.folder.path().join("model.yaml")).unwrap();
    twins.tensors.insert("v_pred".to_owned(), (vec![0], vec![]));
    assert_eq!(of(&twins, &[], Said::default()), (velocity, 96));
    twins.tensors.insert("ztsnr".to_owned(), (vec![0], vec![]));
    let sd2 = Sd2::load(&twins.bundle(&twins.file(&[]), Said::default()), F32).unwrap();
    assert_eq!((predicts(&sd2), sd2.ddim.schedule(4)[0].timestep), (velocity, 999));
}

/// What lies beside the tensors that count does no harm; what lies among them is said.
#[test]
fn what_else_is_in_a_file() {
    let mut twins = Twins::new("sd2");
    let one = |n: usize| (vec![n], vec![0.5; n]);
    let prefix = "cond_stage_model.model.";
    for inside in ["ln_1.weight", "attn.in_proj_bias"] {
        let (shape, numbers) = twins.tensors[&format!("{prefix}transformer.resblocks.0.{inside}")].clone();
        twins.tensors.insert(format!("{prefix}transformer.resblocks.{BLOCKS}.{inside}"), (shape, numbers));
    }
    twins.tensors.insert(format!("{prefix}text_projection"), (vec![128, 128], vec![0.0; 128 * 128]));
    twins.tensors.insert(format!("{prefix}logit_scale"), one(1));
    for name in ["model_ema.diffusion_modelinput_blocks00weight", "betas", "first_stage_model.loss.logvar"] {
        twins.tensors.insert(name.to_owned(), one(3));
    }
    let sd2 = Sd2::load(&twins.bundle(&twins.file(&[]), Said::default()), F32).unwrap();
    assert!(sd2.notes[0].contains("`model_ema.`"), "{:?}", sd2.notes);

    twins.tensors.insert("model.diffusion_model.input_blocks.1.0.surprise".to_owned(), one(3));
    let error = Sd2::load(&twins.bundle(&twins.file(&[]), Said::default()), F32).err().unwrap().to_string();
    assert!(error.contains("`model.diffusion_model.input_blocks.1.0.surprise` [3] is unknown"), "{error}");
}

#[test]
fn the_tokenizer_is_in_the_program() {
    for (family, pad) in [("sd1", 49407), ("sd2", 0)] {
        let twins = Twins::new(family);
        let bundle = twins.bundle(&twins.file(&[]), Said::default()).with_words(Words::Clip);
        let ids = Sd2::load(&bundle, F32).unwrap().tokenizer.encode("a lake");
        assert_eq!((&ids[..4], ids[5], ids.len()), (&[49406, 320, 2553, 49407][..], pad, 77), "{family}");
    }
}

#[test]
fn what_is_not_such_a_file_is_said_in_a_sentence() {
    let twins = Twins::new("sd1");
    let folder = twins.folder.path();
    let error = |file: &Path| -> String {
        let bundle =
            Bundle::open(file).and_then(|bundle| Sd2::check(&bundle.with_perceptual(folder.join("perceptual"))));
        let error = bundle.err().unwrap().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    let with = |name: &str, change: &dyn Fn(&mut BTreeMap<String, Numbers>)| {
        let mut tensors = twins.tensors.clone();
        change(&mut tensors);
        let file = folder.join(name);
        write(&file, &tensors, &[]);
        error(&file)
    };
    let only = |name: &'static str| {
        move |tensors: &mut BTreeMap<String, Numbers>| {
            *tensors = BTreeMap::from([(name.to_owned(), (vec![1], vec![0.0]))]);
        }
    };
    let wide = |inputs: usize| {
        move |tensors: &mut BTreeMap<String, Numbers>| {
            let numbers = (vec![32, inputs, 3, 3], vec![0.0; 32 * inputs * 9]);
            tensors.insert("model.diffusion_model.input_blocks.0.0.weight".to_owned(), numbers);
        }
    };
    for (said, words) in [
        (with("a.safetensors", &only("lora_unet_mid_block_x.lora_up.weight")), "is a LoRA"),
        (with("b.safetensors", &only("decoder.conv_in.weight")), "is one part of a model"),
        (with("c.safetensors", &only("conditioner.embedders.1.model.x")), "Stable Diffusion XL"),
        (with("d.safetensors", &only("model.diffusion_model.joint_blocks.0.x")), "another family"),
        (with("e.safetensors", &only("surprise")), "`surprise`"),
        (with("f.safetensors", &wide(9)), "inpainting"),
        (with("g.safetensors", &wide(5)), "depth"),
        (with("h.safetensors", &|t| t.retain(|name, _| !name.starts_with("first_stage_model."))), "has no VAE"),
        (with("i.safetensors", &|t| t.retain(|name, _| !name.starts_with("cond_stage_model."))), "has no text encoder"),
    ] {
        assert!(said.contains(words) && said.contains(".safetensors`"), "{words}: {said}");
    }
    let pickle = folder.join("model.ckpt");
    fs::write(&pickle, b"PK\x03\x04").unwrap();
    assert!(error(&pickle).contains("pickle"), "{}", error(&pickle));
    let eighth = folder.join("eighth.safetensors");
    let bytes = [0; 4];
    let view = TensorView::new(Dtype::F8_E4M3, vec![4], &bytes).unwrap();
    safetensors::serialize_to_file([("model.diffusion_model.out.2.weight", view)], None, &eighth).unwrap();
    assert!(error(&eighth).contains("F8_E4M3"), "{}", error(&eighth));
    let said = Said { window: Some(64), prediction: None };
    assert!(Bundle::open_with(folder, said).unwrap_err().to_string().contains("--window"));
}

/// Names and shapes of the full sizes, without a number in them.
#[test]
fn the_full_sizes_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    for (family, window) in [("sd1", 64), ("sd2", 64)] {
        let names = json("loading/ldm-names.json")[family].clone();
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for (name, shape) in names["shapes"].as_object().unwrap() {
            let bytes = 2 * shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>();
            header.insert(name.clone(), json!({ "dtype": "F16", "shape": shape, "data_offsets": [end, end + bytes] }));
            end += bytes;
        }
        let header = Value::from(header).to_string();
        let path = folder.path().join(format!("{family}.safetensors"));
        let mut file = File::create(&path).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len(8 + header.len() as u64 + end).unwrap();
        let bundle = Bundle::open(path).unwrap().with_perceptual(fixtures::path("bundles/epsilon/perceptual"));
        assert_eq!(Sd2::check(&bundle).unwrap(), Geometry { window, vae_factor: 8 }, "{family}");
    }
}
