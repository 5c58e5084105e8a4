//! Numbers that leave the range of their dtype: a prediction fails and says why, or it is computed again. A picture
//! that is black all over is never a success.

use fixtures::Copy;
use protocol::{Event, Input};

use crate::worker::{Worker, done, input};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT: &str = "text_encoder/model.safetensors";
const PERCEPTUAL: &str = "perceptual/model.safetensors";

/// Three windows of the small bundles.
fn small() -> Input {
    Input { stride: 8, ..input(128, 64, 2) }
}

fn worker(copy: &Copy, dtype: &str) -> Worker {
    Worker::ready_with(&["--model", copy.path().to_str().unwrap(), "--dtype", dtype])
}

/// How a job ends: the picture, or the error.
fn outcome(worker: &mut Worker, input: Input) -> Result<Vec<u8>, String> {
    worker.run("a", input);
    let ends = |event: &Event| matches!(event, Event::Done { .. } | Event::Failed { .. });
    match worker.until(ends) {
        (events, rgb) if matches!(events.last(), Some(Event::Done { .. })) => Ok(rgb),
        (events, _) => match events.last() {
            Some(Event::Failed { error, fatal: false, .. }) => Err(error.clone()),
            other => panic!("{other:?}"),
        },
    }
}

#[track_caller]
fn assert_fails(worker: &mut Worker, input: Input, parts: &[&str]) {
    let error = outcome(worker, input).expect_err("a picture of nothing is not a success");
    assert_eq!(error.lines().count(), 1, "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// A model whose residual blocks go beyond 65504, as fine-tuned ones do.
#[test]
fn a_unet_that_leaves_f16_fails_and_names_what_works() {
    let copy = Copy::of("epsilon");
    copy.rewrite(UNET, |tensors| {
        let blocks = tensors.iter_mut().filter(|(name, _)| name.contains("resnets") && name.contains("conv2"));
        for number in blocks.flat_map(|(_, (_, numbers))| numbers) {
            *number *= 60_000.0;
        }
    });
    let mut half = worker(&copy, "f16");
    let says = ["step 1 of 2: ", "the UNet left the range of f16", "`--dtype bf16` or `--dtype f32` would work"];
    assert_fails(&mut half, small(), &says);
    // One window is enough, and the worker goes on.
    assert_fails(&mut half, Input { width: 64, ..small() }, &says);
    for dtype in ["bf16", "f32"] {
        let rgb = outcome(&mut worker(&copy, dtype), small()).unwrap();
        assert!(rgb.iter().any(|&byte| byte != rgb[0]), "{dtype}: the picture is flat");
    }
}

#[test]
fn a_text_encoder_that_leaves_f16_fails_and_names_what_works() {
    let copy = Copy::of("epsilon");
    copy.rewrite(TEXT, |tensors| {
        let layers = tensors.iter_mut().filter(|(name, _)| name.contains("fc2.weight") || name.contains("fc1.weight"));
        for number in layers.flat_map(|(_, (_, numbers))| numbers) {
            *number *= 3_000.0;
        }
    });
    let says = ["the text encoder left the range of f16", "`--dtype bf16` or `--dtype f32` would work"];
    assert_fails(&mut worker(&copy, "f16"), small(), &says);
    outcome(&mut worker(&copy, "f32"), small()).unwrap();
}

/// A number in the weights that is not finite: in every dtype the prediction fails, and names the weight.
#[test]
fn weights_that_are_not_finite_are_named() {
    for (file, tensor, network, step) in [
        (UNET, "conv_out.bias", "UNet", "step 1 of 2: "),
        (VAE, "decoder.conv_in.bias", "decoder", "step 1 of 2: "),
        (PERCEPTUAL, "features.5.bias", "perceptual network", "step 1 of 2: "),
        (TEXT, "text_model.final_layer_norm.bias", "text encoder", ""),
    ] {
        let copy = Copy::of("epsilon");
        copy.change(file, tensor, |numbers| numbers[0] = f32::NAN);
        for dtype in ["bf16", "f16"] {
            let damage = format!("`{tensor}` of `{}`", file.split('/').next().unwrap());
            let says = [step, &format!("the numbers of the {network} are not finite in "), &damage];
            assert_fails(&mut worker(&copy, dtype), small(), &says);
        }
        let mut worker = worker(&copy, "f32");
        let unsynchronised = Input { sync_threshold: 0, ..small() };
        match network {
            // Nothing is compared, so nothing fails.
            "perceptual network" => _ = outcome(&mut worker, unsynchronised).unwrap(),
            "decoder" => assert_fails(&mut worker, unsynchronised, &["after the last of 2 steps: ", "the decoder"]),
            _ => assert_fails(&mut worker, unsynchronised, &[network]),
        }
    }
}

/// What goes beyond f16 in the decoder or the perceptual network alone is drawn in f32.
#[test]
fn a_decoder_that_leaves_f16_draws_all_the_same() {
    for (file, tensors) in [
        (VAE, ["decoder.conv_in.weight", "decoder.conv_in.bias"]),
        (PERCEPTUAL, ["features.0.weight", "features.0.bias"]),
    ] {
        let copy = Copy::of("epsilon");
        for tensor in tensors {
            copy.change(file, tensor, |numbers| numbers.iter_mut().for_each(|number| *number *= 1e6));
        }
        let [half, exact] = ["f16", "f32"].map(|dtype| outcome(&mut worker(&copy, dtype), small()).unwrap());
        let apart: usize = half.iter().zip(&exact).map(|(a, b)| usize::from(a.abs_diff(*b))).sum();
        assert!(apart < 10 * exact.len(), "{tensors:?}: {apart} of 255 * {}", exact.len());
        assert!(half.iter().any(|&byte| byte != half[0]), "the picture is flat");
    }
}

/// A job that leaves the range of f32 by its own inputs does not take another one along.
#[test]
fn a_job_out_of_range_fails_alone() {
    let copy = Copy::of("epsilon");
    let mut worker = worker(&copy, "f32");
    let expected = outcome(&mut worker, Input { seed: 5, ..small() }).unwrap();
    worker.run("wild", Input { sync_weight: 1e38, ..small() });
    worker.run("tame", Input { seed: 5, ..small() });
    let (mut wild, mut tame) = (None, None);
    while wild.is_none() || tame.is_none() {
        match worker.next() {
            (Event::Failed { job, error, fatal: false }, _) if job == "wild" => wild = Some(error),
            (event @ Event::Done { .. }, rgb) if done("tame")(&event) => tame = Some(rgb),
            (event @ (Event::Failed { .. } | Event::Done { .. }), _) => panic!("{event:?}"),
            _ => {}
        }
    }
    let (wild, tame) = (wild.unwrap(), tame.unwrap());
    assert!(wild.contains("the UNet are not finite in f32") && wild.contains("`sync_weight`"), "{wild}");
    let close = tame.iter().zip(&expected).filter(|(a, b)| a.abs_diff(**b) <= 1).count();
    assert!(close as f64 >= 0.9999 * expected.len() as f64, "{close} of {} bytes within 1", expected.len());
}
