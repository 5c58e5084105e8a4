//! The perceptual distance of two pictures: LPIPS v0.1 on VGG16.
//!
//! Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", arXiv 1801.03924, as the
//! package `lpips` 0.1.4 computes it. The channels of the five stages come from `perceptual/config.json`.

use std::iter;

use tch::{Device, Kind, Tensor};

use crate::cpu::LpipsBackward;
use crate::load::config::Config;
use crate::load::weights::Weights;
use crate::load::{Bundle, Result};
use crate::nn::gradient_scale::gradient_scale_of_part;
use crate::nn::layers::Conv2d;
use crate::placement::Placement;

/// Mean and deviation of the network's input, for pictures in -1..1.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// Convolutions of each stage of VGG16. Every stage but the first begins by halving its input.
const STAGES: [usize; 5] = [2, 2, 3, 3, 3];

/// Added to lengths, which may be 0.
const EPSILON: f32 = 1e-10;

/// The least that the first gradient of the way back counts for in gradient scaling, where a picture has one pixel: the
/// gradients of the stages before the last may be larger, and are smaller the more pixels there are.
const MIN_FIRST_GRADIENT: f64 = 6e-5;

/// The perceptual network.
pub struct Lpips {
    stages: Vec<Stage>,
    shift: Tensor,
    scale: Tensor,
    kind: Kind,
}

struct Stage {
    convolutions: Vec<Conv2d>,
    head: Head,
}

/// Features of `n` pictures: for each stage `[n, channels, h, w]` in fp32, of length 1 along the channels.
pub struct Features(Vec<Tensor>);

impl Lpips {
    /// Loads `perceptual/` of a bundle.
    ///
    /// # Errors
    /// If a file is missing or does not match; see [`crate::Error`].
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        let mut c = Config::read(bundle, "perceptual/config.json", &[])?;
        let channels = c.sizes("channels", STAGES.len(), None);
        c.finish()?;
        let weights = Weights::open(bundle, "perceptual", "model", placement, placement.picture_kind)?;
        let root = weights.root();
        // The number of a module in torchvision's `features`: convolution and ReLU alternate, a pooling ends each
        // stage.
        let mut number = 0;
        let mut inputs = 3;
        let stages = iter::zip(STAGES, &channels).enumerate().map(|(i, (convolutions, &outputs))| {
            let convolutions = (0..convolutions)
                .map(|_| {
                    let convolution = Conv2d::load(&root.at("features").at(number), inputs, outputs);
                    number += 2;
                    inputs = outputs;
                    convolution
                })
                .collect();
            number += 1;
            let lin = root.at(format!("lin{i}")).tensor("weight", &[1, outputs, 1, 1]).to_kind(Kind::Float);
            Stage { convolutions, head: Head::new(lin) }
        });
        let stages = stages.collect();
        weights.finish()?;
        let kind = placement.picture_kind;
        // The input is small: fp32 costs nothing, and fp16 would round every picture the same way.
        let of_input = if kind == Kind::Half { Kind::Float } else { kind };
        let constant = |values: [f32; 3]| {
            let values = Tensor::from_slice(&values).view([1, 3, 1, 1]);
            values.to_device(placement.device).to_kind(of_input)
        };
        Ok(Self { stages, shift: constant(SHIFT), scale: constant(SCALE), kind })
    }

    /// The channels of its stages: those of VGG16 are 64, 128, 256, 512 and 512.
    pub fn channels(&self) -> Vec<i64> {
        self.stages.iter().map(|stage| stage.head.lin.size()[1]).collect()
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.shift.device()
    }

    /// The distances of `n` pictures to their targets, `[n]` in fp32. There are `n` targets, or one for all.
    pub fn distances(&self, pictures: &Features, targets: &Features) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let features = iter::zip(&pictures.0, &targets.0);
        let stages = iter::zip(&self.stages, features);
        let distances = stages.map(|(stage, (pictures, targets))| stage.head.distance(pictures, targets));
        distances.reduce(|sum, distance| sum + distance).expect("VGG16 has five stages")
    }

    /// Features of pictures `[n, 3, h, w]` in -1..1.
    pub fn features(&self, pictures: &Tensor) -> Features {
        let _no_grad = tch::no_grad_guard();
        Features(self.maps(pictures).map(|maps| normalise(&maps[maps.len() - 1])).collect())
    }

    /// The gradients of the distances of `n` pictures `[n, 3, h, w]` in -1..1 to their targets, with respect to the
    /// pictures. There are `n` targets, or one for all.
    pub fn gradient(&self, pictures: &Tensor, targets: &Features) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let maps: Vec<_> = self.maps(pictures).collect();
        let (mut gradient, mut scale) = (None, None);
        for ((stage, mut maps), target) in iter::zip(&self.stages, maps).zip(&targets.0).rev() {
            let last = maps.pop().expect("each stage has convolutions");
            let mut g = if self.kind == Kind::Half && gradient.is_none() {
                let g = stage.head.backward(&last.to_kind(Kind::Float), target, None, None);
                let scale = scale.insert(gradient_scale_of_part(&g, MIN_FIRST_GRADIENT / pixels(pictures)));
                (g / &*scale).to_kind(self.kind)
            } else {
                stage.head.backward(&last, target, gradient.as_ref(), scale.as_ref())
            };
            for convolution in stage.convolutions.iter().rev() {
                g = convolution.backward(&g, &g.size());
                if let Some(map) = maps.pop() {
                    g = map.threshold_backward(&g, 0.0);
                }
            }
            gradient = Some(g);
        }
        let gradient = gradient.expect("VGG16 has five stages").to_kind(pictures.kind());
        let gradient = if let Some(scale) = scale { gradient * scale } else { gradient };
        gradient / &self.scale
    }

    /// Stage by stage, the outputs of its ReLUs.
    fn maps(&self, pictures: &Tensor) -> impl Iterator<Item = Vec<Tensor>> {
        let first = ((pictures.to_kind(self.shift.kind()) - &self.shift) / &self.scale).to_kind(self.kind);
        self.stages.iter().scan(None, move |before: &mut Option<Tensor>, stage| {
            let mut x = before.as_ref().map_or_else(|| first.shallow_clone(), pool);
            let maps = stage.convolutions.iter().map(|convolution| {
                x = convolution.forward(&x).relu_();
                x.shallow_clone()
            });
            let maps: Vec<Tensor> = maps.collect();
            *before = Some(x);
            Some(maps)
        })
    }
}

impl Features {
    /// Whether all of them are finite.
    pub fn is_finite(&self) -> bool {
        self.0.iter().all(|stage| stage.isfinite().all().int64_value(&[]) != 0)
    }

    /// The features of several pictures as one batch.
    pub fn cat(parts: &[&Self]) -> Self {
        let stage = |i: usize| Tensor::cat(&parts.iter().map(|part| &part.0[i]).collect::<Vec<_>>(), 0);
        Self((0..STAGES.len()).map(stage).collect())
    }
}

/// What compares the last map of a stage with that of the target.
struct Head {
    /// Weights of the channels, `[1, channels, 1, 1]` in fp32, not negative.
    lin: Tensor,
    kernel: LpipsBackward,
}

impl Head {
    fn new(lin: Tensor) -> Self {
        Self { kernel: LpipsBackward::new(&lin, EPSILON), lin }
    }

    /// The gradient of the input of the stage's last ReLU, whose output is `map` `[n, channels, h, w]`. `targets` are
    /// features, `n` or one for all; `grad_pooled` is the gradient of [`pool`] of the map, if another stage follows.
    /// The distances, from which it begins, are divided by `scale` `[n, 1, 1, 1]`.
    fn backward(&self, map: &Tensor, targets: &Tensor, grad_pooled: Option<&Tensor>, scale: Option<&Tensor>) -> Tensor {
        let by_kernel = self.kernel.try_backward(map, targets, grad_pooled, scale);
        by_kernel.unwrap_or_else(|| self.backward_by_autograd(map, targets, grad_pooled, scale))
    }

    fn backward_by_autograd(
        &self,
        map: &Tensor,
        targets: &Tensor,
        grad_pooled: Option<&Tensor>,
        scale: Option<&Tensor>,
    ) -> Tensor {
        let leaf = map.detach().set_requires_grad(true);
        let total = tch::with_grad(|| {
            let distances = self.distance(&normalise(&leaf), targets);
            let distances = scale.map_or_else(|| distances.shallow_clone(), |scale| &distances / scale.flatten(0, -1));
            let total = distances.sum(Kind::Float);
            // The gradient of this product with respect to the pooled map is `grad_pooled`.
            grad_pooled.map_or_else(|| total.shallow_clone(), |g| &total + (pool(&leaf) * g).sum(Kind::Float))
        });
        map.threshold_backward(&Tensor::run_backward(&[total], &[leaf], false, false)[0], 0.0)
    }

    /// What the stage adds to the distances of pictures to targets, `[n]`.
    fn distance(&self, pictures: &Tensor, targets: &Tensor) -> Tensor {
        // The 1x1 convolution and the spatial mean, the mean first: fewer numbers, same result.
        let means = (pictures - targets).square().mean_dim([2, 3].as_slice(), true, Kind::Float);
        (means * &self.lin).sum_dim_intlist([1, 2, 3].as_slice(), false, Kind::Float)
    }
}

/// Of each picture.
fn pixels(pictures: &Tensor) -> f64 {
    let (_, _, height, width) = pictures.size4().expect("pictures are [n, 3, h, w]");
    (height * width) as f64
}

/// Halves height and width.
fn pool(x: &Tensor) -> Tensor {
    x.max_pool2d([2], [2], [0], [1], false)
}

/// Divides by the length along the channels, in fp32: narrower dtypes cannot represent 1e-10.
///
/// Where all channels are 0 the package's gradient is 0/0; the clamp makes it 0 there and changes nothing elsewhere.
fn normalise(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let length = x.square().sum_dim_intlist([1].as_slice(), true, Kind::Float).clamp_min(1e-30).sqrt();
    x / (length + f64::from(EPSILON))
}

#[cfg(test)]
mod tests {
    use fixtures::{BUNDLES, Cases, F32, assert_close, path};
    use tch::Device;

    use super::*;
    use crate::layout::channels_last;
    use crate::testing::{random, relative_error};

    #[test]
    fn distances_match_the_package() {
        for name in BUNDLES {
            // The types of `fixtures` are those of the library, not of this test build.
            let bundle = Bundle::open(path(&format!("bundles/{name}"))).unwrap();
            let (lpips, cases) = (Lpips::load(&bundle, Placement::new(F32.device, F32.kind)).unwrap(), Cases::of(name));
            for case in cases.list("lpips") {
                let [pictures, targets] = ["picture", "target"].map(|field| lpips.features(cases.tensor(case, field)));
                let distances = lpips.distances(&pictures, &targets);
                assert_close(&format!("{name} distance"), &distances, &cases.tensor(case, "loss").view([1]));
            }
        }
    }

    /// Distances that are a power of two smaller, in f16, which has few bits for numbers below 6e-5.
    #[test]
    fn small_gradients_do_not_underflow() {
        let bundle = Bundle::open(path("bundles/epsilon")).unwrap();
        for channels_last in [false, true] {
            let placement = Placement { channels_last, ..Placement::of_gpu_on_cpu(Kind::Half) };
            let mut lpips = Lpips::load(&bundle, placement).unwrap();
            let [pictures, target] = [2, 1].map(|n| random(&[n, 3, 64, 64]).tanh());
            let target = lpips.features(&target);
            let expected = lpips.gradient(&pictures, &target);
            let factor = 2f64.powi(-9);
            for stage in &mut lpips.stages {
                stage.head = Head::new(&stage.head.lin * factor);
            }
            let found = lpips.gradient(&pictures, &target);
            let tiny = found.abs().lt(6e-5).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            assert!(tiny > 0.9, "only {tiny:.2} of the gradients are tiny");
            assert!((found / factor).equal(&expected), "channels last {channels_last}");
        }
    }

    /// Against autograd in fp32, relative to the norm of the expected gradient.
    #[test]
    fn the_kernel_matches_autograd() {
        // Whole lanes and not, even and odd rows, as many targets and one for all, maps for several threads.
        for (shape, targets) in
            [([2, 8, 4, 6], 2), ([3, 12, 5, 7], 1), ([1, 3, 2, 2], 1), ([2, 64, 9, 16], 2), ([1, 16, 161, 130], 1)]
        {
            let [n, channels, height, width] = shape;
            let head = Head::new(random(&[1, channels, 1, 1]).abs());
            let map = channels_last(&random(&shape).relu());
            let targets = normalise(&random(&[targets, channels, height, width]).relu());
            // Another one for each window.
            let scale = (Tensor::arange(n, (Kind::Float, Device::Cpu)) - 2.0).exp2().view([n, 1, 1, 1]);
            // As large as the gradients of the distance.
            let grad_pooled = random(&[n, channels, height / 2, width / 2]) / (height * width);
            // In f16 some are so small that they have few bits.
            for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 1e-2), (Kind::Half, 5e-3)] {
                let map = map.to_kind(kind);
                for (grad_pooled, scale) in
                    [(None, None), (Some(&grad_pooled.to_kind(kind)), None), (None, Some(&scale))]
                {
                    let (map32, grad32) = (map.to_kind(Kind::Float), grad_pooled.map(|g| g.to_kind(Kind::Float)));
                    let expected = head.backward_by_autograd(&map32.contiguous(), &targets, grad32.as_ref(), scale);
                    for threads in [1, 3] {
                        tch::set_num_threads(threads);
                        let found = head.kernel.try_backward(&map, &targets, grad_pooled, scale).unwrap();
                        let error = relative_error(&found.to_kind(Kind::Float), &expected);
                        let which = (grad_pooled.is_some(), scale.is_some());
                        assert!(error < tolerance, "{shape:?} {kind:?} {which:?} {threads}: {error}");
                    }
                }
            }
        }
    }
}
