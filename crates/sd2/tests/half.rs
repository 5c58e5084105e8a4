//! Decoder and perceptual network in f16, as on a GPU: a residual stream divided by a power of two gives the same
//! picture, and fits where the stream itself does not.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use fixtures::{F32, NETWORKS, bundle, relative_error, root};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sd2::lpips::Lpips;
use sd2::vae::Decoder;
use sd2::{Bundle, Checkpointing, Placement};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// Normally distributed numbers, the same in every run.
fn random(shape: &[i64], seed: i64) -> Tensor {
    let count: i64 = shape.iter().product();
    // Not libtorch's generator, which other tests use, too.
    let i = Tensor::arange(count, (Kind::Double, Device::Cpu)) + 1e4 * seed as f64;
    let uniform = |i: Tensor| {
        let x = (i * 12.9898).sin() * 43758.5453;
        &x - x.floor()
    };
    let [radius, angle] = [uniform(&i + 0.0), uniform(i + 0.5)];
    let normal = (radius.clamp(1e-9, 1.0).log() * -2.0).sqrt() * (angle * std::f64::consts::TAU).cos();
    normal.to_kind(Kind::Float).view(shape)
}

/// The picture of latents and the gradient of these.
fn there_and_back(decoder: &Decoder, latents: &Tensor, gradient: &Tensor) -> [Tensor; 2] {
    let (picture, tape) = decoder.pictures_recorded(latents, Checkpointing::On);
    let gradient = decoder.pictures_backward(gradient, tape);
    [picture, gradient]
}

/// Bit for bit, in dtypes with the range of f32, forward and backward, whole and in strips.
#[test]
fn a_scaled_stream_changes_nothing() {
    let demo = || ("demo", Bundle::open(root().join("models/demo")).unwrap());
    for (name, bundle) in NETWORKS.into_iter().map(|name| (name, bundle(name))).chain([demo()]) {
        for (kind, channels_last) in [(Kind::Float, true), (Kind::Float, false), (Kind::BFloat16, true)] {
            let placement = Placement { channels_last, ..Placement::new(Device::Cpu, kind) };
            let load = |stream_exponent| Decoder::load(&bundle, Placement { stream_exponent, ..placement }).unwrap();
            let (as_it_is, scaled) = (load(0), load(5));
            let latents = random(&[2, as_it_is.channels, 8, 12], 1) * 2.0;
            let side = as_it_is.factor;
            let gradient = random(&[2, 3, 8 * side, 12 * side], 2) * 1e-3;
            let expected = there_and_back(&as_it_is, &latents, &gradient);
            let found = there_and_back(&scaled, &latents, &gradient);
            for (what, (found, expected)) in ["picture", "gradient"].iter().zip(found.iter().zip(&expected)) {
                assert!(expected.std(false).double_value(&[]) > 0.0, "{name}: a uniform {what} would prove nothing");
                let error = relative_error(found, expected);
                assert!(found.equal(expected), "{name} {kind:?}, channels last {channels_last}, {what}: {error:.1e}");
            }
        }
    }
}

/// A bundle whose decoder computes `factor` times the residual stream of `epsilon`, and so the same pictures.
fn with_larger_stream(factor: f32) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() { copy(&entry.path(), &to) } else { _ = fs::copy(entry.path(), to).unwrap() }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures::path("bundles/epsilon"), folder.path());
    let file = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    // What adds to the stream, or moves it on.
    let adds = |name: &str| {
        let [weight_and_bias, bias] = [
            &["decoder.conv_in.", ".conv2.", ".to_out.0.", ".proj_attn."][..],
            &[".conv_shortcut.bias", "upsamplers.0.conv.bias"],
        ];
        name.starts_with("decoder.")
            && (weight_and_bias.iter().any(|part| name.contains(part)) || bias.iter().any(|part| name.ends_with(part)))
    };
    let changed: HashMap<String, (Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            assert_eq!(view.dtype(), Dtype::F32, "{name}");
            let times = if adds(&name) { factor } else { 1.0 };
            let numbers =
                view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()) * times);
            (name, (view.shape().to_vec(), numbers.flat_map(f32::to_le_bytes).collect()))
        })
        .collect();
    let views = changed
        .iter()
        .map(|(name, (shape, data))| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &file).unwrap();
    folder
}

/// What is infinite in f16 as it is, is finite and right by [`Placement::new`]'s choice for a GPU.
#[test]
fn a_stream_beyond_f16_fits_if_it_is_scaled() {
    let folder = with_larger_stream(16384.0);
    let bundle = Bundle::open(folder.path()).unwrap();
    let exact = Decoder::load(&bundle, F32).unwrap();
    let latents = random(&[1, exact.channels, 8, 8], 1);
    let gradient = random(&[1, 3, 8 * exact.factor, 8 * exact.factor], 2) * 1e-6;
    let expected = there_and_back(&exact, &latents, &gradient);
    let finite = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) != 0;
    for channels_last in [false, true] {
        let placement = Placement { channels_last, ..Placement::of_gpu_on_cpu(Kind::Half) };
        let as_it_is = Decoder::load(&bundle, Placement { stream_exponent: 0, ..placement }).unwrap();
        assert!(!finite(&as_it_is.pictures(&latents)), "the stream is to leave the range of f16");
        let scaled = there_and_back(&Decoder::load(&bundle, placement).unwrap(), &latents, &gradient);
        for (what, (found, expected)) in ["picture", "gradient"].iter().zip(scaled.iter().zip(&expected)) {
            assert!(finite(found), "{what}");
            let error = relative_error(found, expected);
            println!("{what}, channels last {channels_last}: {error:.1e}");
            assert!(error < 1e-2, "{what}, channels last {channels_last}: {error:.1e}");
        }
    }
}

/// In f16, which has nothing between 0 and 6e-8: a window with a tiny gradient beside another one.
#[test]
fn small_gradients_do_not_underflow_in_the_decoder() {
    for channels_last in [false, true] {
        let placement = Placement { channels_last, ..Placement::of_gpu_on_cpu(Kind::Half) };
        let decoder = Decoder::load(&bundle("v"), placement).unwrap();
        let latents = random(&[2, decoder.channels, 8, 8], 1);
        let gradient = random(&[2, 3, 8 * decoder.factor, 8 * decoder.factor], 2);
        // In the memory order in which the perceptual network passes it on.
        let gradient =
            if channels_last { gradient.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]) } else { gradient };
        let backward = |gradient: &Tensor| there_and_back(&decoder, &latents, gradient)[1].shallow_clone();
        let expected = backward(&gradient);
        let factors = Tensor::from_slice(&[2f32.powi(-40), 1.0]).view([2, 1, 1, 1]);
        assert!((backward(&(&gradient * &factors)) / factors).equal(&expected), "channels last {channels_last}");
    }
}

/// The larger a picture, the smaller are the gradients of the distance: here nearly all are so small that f16 has few
/// bits. What remains are the sides of ReLUs and poolings, which rounding changes; bf16 changes more of them.
#[test]
fn gradients_of_distances_in_f16_are_better_than_in_bf16() {
    let bundle = Bundle::open(root().join("models/demo")).unwrap();
    let exact = Lpips::load(&bundle, F32).unwrap();
    let side = 256;
    let picture = |seed| (random(&[1, 3, side, side], seed) * 0.3).tanh();
    let (picture, target) = (picture(3), picture(4));
    let expected = exact.gradient(&picture, &exact.features(&target));
    let smallest_with_all_bits = 6e-5;
    let tiny = expected.abs().lt(smallest_with_all_bits).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    assert!(tiny > 0.9, "only {tiny:.2} of the gradients are tiny");
    for channels_last in [false, true] {
        let [f16, bf16] = [Kind::Half, Kind::BFloat16].map(|kind| {
            let placement = Placement { channels_last, ..Placement::of_gpu_on_cpu(kind) };
            let lpips = Lpips::load(&bundle, placement).unwrap();
            relative_error(&lpips.gradient(&picture, &lpips.features(&target)), &expected)
        });
        println!("channels last {channels_last}: {f16:.1e} in f16, {bf16:.1e} in bf16");
        assert!(f16 < bf16 / 2.0, "channels last {channels_last}: {f16:.1e} in f16, {bf16:.1e} in bf16");
    }
}
