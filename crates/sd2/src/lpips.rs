//! The perceptual distance of two pictures: LPIPS v0.1 on VGG16.
//!
//! Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", arXiv 1801.03924, as the
//! package `lpips` 0.1.4 computes it. The channels of the five stages come from `perceptual/config.json`.

use tch::{Kind, Tensor};

use crate::cpu::lpips::Back;
use crate::load::config::Config;
use crate::load::weights::Weights;
use crate::load::{Bundle, Result};
use crate::nn::layers::Conv2d;
use crate::placement::Placement;

/// Mean and deviation of the network's input, for pictures in -1..1.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// Convolutions of each stage of VGG16; a stage begins by halving the picture, but for the first.
const STAGES: [usize; 5] = [2, 2, 3, 3, 3];

/// Added to lengths, which may be 0.
pub(crate) const TINY: f32 = 1e-10;

/// The perceptual network.
pub struct Lpips {
    stages: Vec<Stage>,
    shift: Tensor,
    scale: Tensor,
}

struct Stage {
    convolutions: Vec<Conv2d>,
    /// `[1, channels, 1, 1]` in fp32, not negative.
    lin: Tensor,
    back: Back,
}

/// Features of `n` pictures: for each stage, `[n, channels, h, w]` in fp32 of length 1 along the channels.
pub struct Features(Vec<Tensor>);

impl Lpips {
    /// Loads `perceptual/` of a bundle.
    ///
    /// # Errors
    /// If a file is missing or does not fit; see [`crate::Error`].
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        let mut c = Config::read(bundle, "perceptual/config.json", &[])?;
        let channels = c.sizes("channels", STAGES.len(), None);
        c.finish()?;
        let weights = Weights::open(bundle, "perceptual", "model", placement, placement.picture_kind)?;
        let root = weights.root();
        // The number of a module in torchvision's `features`: convolution and ReLU alternate, a pooling ends each stage.
        let mut number = 0;
        let mut inputs = 3;
        let stages = std::iter::zip(STAGES, &channels).enumerate().map(|(i, (convolutions, &outputs))| {
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
            Stage { convolutions, back: Back::new(&lin), lin }
        });
        let stages = stages.collect();
        weights.finish()?;
        let constant = |values: [f32; 3]| {
            let values = Tensor::from_slice(&values).view([1, 3, 1, 1]);
            values.to_device(placement.device).to_kind(placement.picture_kind)
        };
        Ok(Self { stages, shift: constant(SHIFT), scale: constant(SCALE) })
    }

    /// Features of pictures `[n, 3, h, w]` in -1..1.
    pub fn features(&self, pictures: &Tensor) -> Features {
        let _no_grad = tch::no_grad_guard();
        Features(self.maps(pictures).map(|maps| normalise(&maps[maps.len() - 1])).collect())
    }

    /// The distance of each of `n` pictures to its target, `[n]` in fp32. The targets are as many, or one for all.
    pub fn distance(&self, pictures: &Features, targets: &Features) -> Tensor {
        let stages = std::iter::zip(&pictures.0, &targets.0).zip(&self.stages);
        let distances = stages.map(|((picture, target), stage)| distance(picture, target, &stage.lin));
        distances.reduce(|sum, distance| sum + distance).expect("VGG16 has five stages")
    }

    /// The gradient of each of `n` pictures `[n, 3, h, w]` in -1..1, of its distance to its target.
    pub fn gradient(&self, pictures: &Tensor, targets: &Features) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let maps: Vec<_> = self.maps(pictures).collect();
        let mut gradient = None;
        for ((stage, mut maps), target) in std::iter::zip(&self.stages, maps).zip(&targets.0).rev() {
            let last = maps.pop().expect("each stage has convolutions");
            let mut g = stage.back.run(&last, target, gradient.as_ref());
            for convolution in stage.convolutions.iter().rev() {
                g = convolution.backward(&g, &g.size());
                if let Some(map) = maps.pop() {
                    g = map.threshold_backward(&g, 0.0);
                }
            }
            gradient = Some(g);
        }
        gradient.expect("VGG16 has five stages").to_kind(pictures.kind()) / &self.scale
    }

    /// Stage by stage, the maps after each of its ReLUs.
    fn maps(&self, pictures: &Tensor) -> impl Iterator<Item = Vec<Tensor>> {
        let first = (pictures.to_kind(self.shift.kind()) - &self.shift) / &self.scale;
        self.stages.iter().scan(None, move |before: &mut Option<Tensor>, stage| {
            let mut x = before.as_ref().map_or_else(|| first.shallow_clone(), pool);
            let through = |convolution: &Conv2d| {
                x = convolution.forward(&x).relu_();
                x.shallow_clone()
            };
            let maps = stage.convolutions.iter().map(through).collect();
            *before = Some(x);
            Some(maps)
        })
    }
}

/// Halves height and width.
pub(crate) fn pool(x: &Tensor) -> Tensor {
    x.max_pool2d([2], [2], [0], [1], false)
}

impl Features {
    /// Puts the features of several pictures in one batch.
    pub fn cat(parts: &[&Self]) -> Self {
        let stage = |i: usize| Tensor::cat(&parts.iter().map(|part| &part.0[i]).collect::<Vec<_>>(), 0);
        Self((0..STAGES.len()).map(stage).collect())
    }
}

/// Divides by the length along the channels, in fp32: 1e-10 is nothing in the narrower dtypes.
///
/// Where all channels are 0 the package's gradient is 0/0; the clamp makes it 0 there and changes nothing elsewhere.
pub(crate) fn normalise(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let length = x.square().sum_dim_intlist([1].as_slice(), true, Kind::Float).clamp_min(1e-30).sqrt();
    x / (length + f64::from(TINY))
}

/// What one stage adds to the distance of pictures to targets, `[n]`.
pub(crate) fn distance(pictures: &Tensor, targets: &Tensor, lin: &Tensor) -> Tensor {
    // The 1x1 convolution and the spatial mean, the mean first: fewer numbers, same result.
    let means = (pictures - targets).square().mean_dim([2, 3].as_slice(), true, Kind::Float);
    (means * lin).sum_dim_intlist([1, 2, 3].as_slice(), false, Kind::Float)
}
