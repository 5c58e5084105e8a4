//! Checkpoints in one file: the same networks as those of the folder, from the same numbers.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use fixtures::{BLOCKS, F32, Tensors, Twins, json, write};
use geometry::Geometry;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd2::ddim::Prediction;
use sd2::tokenizer::Words;
use sd2::unet::{Text, Time};
use sd2::{Bundle, Said, Sd2, read_geometry};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

/// Of the random weights.
const SEED: u64 = 7;

fn bundle(file: &Path, said: Said) -> Bundle {
    Bundle::open_with(file, said).unwrap()
}

/// All that is computed of a few numbers.
fn compute(sd2: &Sd2) -> [Tensor; 4] {
    let ids: Vec<i64> = (0..77).map(|i| i * 611).collect();
    let embedding = sd2.text_encoder.forward(&ids);
    let (keys, times) = (sd2.unet.text_keys(&embedding), sd2.unet.time_table(&[500]));
    let latents = (Tensor::arange(4 * 16 * 16, (Kind::Float, tch::Device::Cpu)) * 0.7).sin().view([1, 4, 16, 16]);
    let (time, text) = (Time::of_batch(&[(&times, 0)]), Text::of_batch(&[vec![&keys]]));
    let output = sd2.unet.forward(&latents, &time, &text);
    let picture = sd2.decoder.forward(&latents);
    let encoded = sd2.load_encoder().unwrap().latents(&picture.sigmoid(), i64::MAX);
    [embedding, output, picture, encoded]
}

#[test]
fn a_file_is_the_folder_it_would_be() {
    for family in ["sd1", "sd2"] {
        let twins = Twins::new(family, SEED);
        let folder = Bundle::open(twins.folder()).unwrap();
        let expected = compute(&Sd2::load(&folder, F32).unwrap());
        let file = bundle(&twins.file(&[]), Said::default());
        assert_eq!(read_geometry(&file).unwrap(), Geometry { window: 64, vae_factor: 8 });
        let sd2 = Sd2::load(&file, F32).unwrap();
        assert!(sd2.notes[0].contains("predicts noise (which is assumed, for its UNet does not"), "{:?}", sd2.notes);
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
    let mut twins = Twins::new("sd2", SEED);
    let of = |twins: &Twins, metadata: &[(&str, &str)], said: Said| {
        let bundle = bundle(&twins.file(metadata), said);
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
    fs::write(twins.folder().join("model.yaml"), "model:\n  params:\n    parameterization: \"v\"\n").unwrap();
    assert_eq!(of(&twins, &[], Said::default()), (velocity, 96));
    assert_eq!(of(&twins, &[("modelspec.prediction_type", "epsilon")], Said::default()), (noise, 64));
    fs::remove_file(twins.folder().join("model.yaml")).unwrap();
    twins.tensors.insert("v_pred".to_owned(), (vec![0], vec![]));
    assert_eq!(of(&twins, &[], Said::default()), (velocity, 96));
    twins.tensors.insert("ztsnr".to_owned(), (vec![0], vec![]));
    let sd2 = Sd2::load(&bundle(&twins.file(&[]), Said::default()), F32).unwrap();
    assert_eq!((predicts(&sd2), sd2.ddim.schedule(4)[0].timestep), (velocity, 999));
}

/// Random weights tell nothing, those that give back the noise tell that they predict it. That velocity is found, too,
/// is shown with the demo model, which was trained for it.
#[test]
fn a_unet_that_gives_back_the_noise_tells() {
    for family in ["sd1", "sd2"] {
        let mut twins = Twins::new(family, SEED);
        gives_back_the_noise(&mut twins.tensors);
        let sd2 = Sd2::load(&bundle(&twins.file(&[]), Said::default()), F32).unwrap();
        assert!(sd2.notes[0].contains("predicts noise (by a probe of its UNet)"), "{:?}", sd2.notes);
    }
}

/// The row, the column, and whether it is the tap in the middle of a 3x3 convolution.
fn place(shape: &[usize], i: usize) -> (usize, usize, bool) {
    let taps: usize = shape[2..].iter().product();
    (i / taps / shape[1], i / taps % shape[1], i % taps == taps / 2)
}

/// Changes a random UNet so that its output is its input: each channel of the latents goes, once as it is and once
/// negated, through two channels of the first convolution, from there by the outermost skip connection to the last
/// resnet, and out; `silu(x) - silu(-x) = x`.
fn gives_back_the_noise(tensors: &mut Tensors) {
    let unet = "model.diffusion_model";
    let mut set = |name: &str, change: &dyn Fn(&[usize], usize) -> f32| {
        let (shape, numbers) = tensors.get_mut(&format!("{unet}.{name}")).unwrap();
        for (i, number) in numbers.iter_mut().enumerate() {
            *number = change(shape, i);
        }
    };
    let sign = |channel: usize| if channel.is_multiple_of(2) { 1.0 } else { -1.0 };
    for bias in
        ["input_blocks.0.0", "output_blocks.11.0.out_layers.3", "output_blocks.11.0.skip_connection", "out.0", "out.2"]
    {
        set(&format!("{bias}.bias"), &|_, _| 0.0);
    }
    set("input_blocks.0.0.weight", &|shape, i| match place(shape, i) {
        (out, latent, true) if out / 2 == latent => sign(out),
        _ => 0.0,
    });
    set("output_blocks.11.0.out_layers.3.weight", &|_, _| 0.0);
    // What came up stands before what was skipped.
    set("output_blocks.11.0.skip_connection.weight", &|shape, i| {
        let (out, from, _) = place(shape, i);
        if from == shape[1] - shape[0] + out { 1.0 } else { 0.0 }
    });
    for end in ["weight", "bias"] {
        set(&format!("output_blocks.11.1.proj_out.{end}"), &|_, _| 0.0);
    }
    set("out.0.weight", &|_, _| 1.0);
    set("out.2.weight", &|shape, i| match place(shape, i) {
        (latent, from, true) if from / 2 == latent => sign(from),
        _ => 0.0,
    });
}

/// What lies beside the tensors that count does no harm; what lies among them is said.
#[test]
fn what_else_is_in_a_file() {
    let mut twins = Twins::new("sd2", SEED);
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
    let sd2 = Sd2::load(&bundle(&twins.file(&[]), Said::default()), F32).unwrap();
    assert!(sd2.notes[0].contains("`model_ema.`"), "{:?}", sd2.notes);

    twins.tensors.insert("model.diffusion_model.input_blocks.1.0.surprise".to_owned(), one(3));
    let error = Sd2::load(&bundle(&twins.file(&[]), Said::default()), F32).err().unwrap().to_string();
    assert!(error.contains("`model.diffusion_model.input_blocks.1.0.surprise` [3] is unknown"), "{error}");
}

#[test]
fn the_tokenizer_is_in_the_program() {
    for (family, pad) in [("sd1", 49407), ("sd2", 0)] {
        let twins = Twins::new(family, SEED);
        let bundle = bundle(&twins.file(&[]), Said::default()).with_words(Words::Clip);
        let ids = Sd2::load(&bundle, F32).unwrap().tokenizer.encode("a lake");
        assert_eq!((&ids[..4], ids[5], ids.len()), (&[49406, 320, 2553, 49407][..], pad, 77), "{family}");
    }
}

#[test]
fn what_is_not_such_a_file_is_said_in_a_sentence() {
    let twins = Twins::new("sd1", SEED);
    let folder = twins.folder();
    let error = |file: &Path| -> String {
        let bundle =
            Bundle::open(file).and_then(|bundle| Sd2::check(&bundle.with_perceptual(folder.join("perceptual"))));
        let error = bundle.err().unwrap().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    let with = |name: &str, change: &dyn Fn(&mut Tensors)| {
        let mut tensors = twins.tensors.clone();
        change(&mut tensors);
        let file = folder.join(name);
        write(&file, &tensors, &[]);
        error(&file)
    };
    let only = |name: &'static str| {
        move |tensors: &mut Tensors| {
            *tensors = Tensors::from([(name.to_owned(), (vec![1], vec![0.0]))]);
        }
    };
    let wide = |inputs: usize| {
        move |tensors: &mut Tensors| {
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
        (with("j.safetensors", &only("emb_params")), "textual inversion"),
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
