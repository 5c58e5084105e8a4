//! The encoder: pictures to latents.
//!
//! A latent has a distribution, of which this is the mean: what a picture becomes does not depend on chance.

use tch::{Kind, Tensor};

use super::attention::Attention;
use super::settings::{EPS, Settings};
use crate::load::weights::{Scope, Weights};
use crate::load::{Bundle, Error, Result};
use crate::nn::layers::{Conv2d, GroupNorm};
use crate::nn::resnet::{Resnet, Shift};
use crate::nn::strips::Strips;
use crate::nn::tape::Tape;
use crate::placement::Placement;

/// The encoder, in fp32 whatever the dtype of the model: a panorama needs it once, and its numbers may leave the range
/// of f16.
pub struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_resnets: [Resnet; 2],
    mid_attention: Option<Attention>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    quant_conv: Option<Conv2d>,
    scaling_factor: f64,
    shift_factor: f64,
    channels: i64,
    /// Channels of the widest feature map on the finest level.
    finest_channels: i64,
    /// Pixels per latent, along each axis.
    factor: i64,
}

impl Encoder {
    /// Loads the encoder of `vae/` of a bundle.
    ///
    /// # Errors
    /// If the model has none, or if a file is missing or does not match; see [`Error`].
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        let settings = Settings::read(bundle)?;
        let placement = Placement { picture_kind: Kind::Float, stream_exponent: 0, ..placement };
        let weights = Weights::open(bundle, "vae", "diffusion_pytorch_model", placement, placement.picture_kind)?;
        if !weights.has("encoder.") {
            let problem = "has no encoder (no tensors `encoder.*`)".to_owned();
            return Err(Error::File { file: "vae".to_owned(), problem });
        }
        weights.ignore(|name| name.starts_with("decoder.") || name.starts_with("post_quant_conv."));
        let root = weights.root();
        let (scope, moments) = (root.at("encoder"), 2 * settings.latent_channels);
        let levels = settings.channels.len();
        let (finest, coarsest) = (settings.channels[0], settings.channels[levels - 1]);
        let mid = scope.at("mid_block");
        // The configuration that is made of a single file does not tell.
        let quant_conv = settings.quant_conv && (bundle.single().is_none() || weights.has("quant_conv."));
        let encoder = Self {
            conv_in: Conv2d::load(&scope.at("conv_in"), 3, finest),
            down_blocks: (0..levels).map(|i| DownBlock::load(&scope.at("down_blocks").at(i), &settings, i)).collect(),
            mid_resnets: [0, 1]
                .map(|j| Resnet::load(&mid.at("resnets").at(j), coarsest, coarsest, settings.groups, EPS)),
            mid_attention: settings
                .mid_attention
                .then(|| Attention::load(&mid.at("attentions.0"), coarsest, settings.groups, 1.0)),
            conv_norm_out: GroupNorm::load(&scope.at("conv_norm_out"), coarsest, settings.groups, EPS),
            conv_out: Conv2d::load(&scope.at("conv_out"), coarsest, moments),
            quant_conv: quant_conv.then(|| Conv2d::load_with(&root.at("quant_conv"), moments, moments, 1, 1, 0)),
            scaling_factor: settings.scaling_factor,
            shift_factor: settings.shift_factor,
            channels: settings.latent_channels,
            finest_channels: finest,
            factor: 1 << (levels - 1),
        };
        weights.finish()?;
        Ok(encoder)
    }

    /// Pictures `[n, 3, factor * h, factor * w]` in 0..1 to latents `[n, 4, h, w]` in fp32. Feature maps of more than
    /// `strip` numbers go through the layers in strips of about that size; see
    /// [`Decoder::large_pictures`](super::Decoder::large_pictures).
    pub fn latents(&self, pictures: &Tensor, strip: i64) -> Tensor {
        let (_, _, height, width) = pictures.size4().expect("pictures are [n, 3, h, w]");
        let rows = (strip / (self.finest_channels * width * self.factor)).max(1);
        let x = pictures * 2.0 - 1.0;
        if height <= rows * self.factor { self.encode(&x) } else { self.encode_in_strips(&x, rows) }
    }

    fn encode(&self, pictures: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let mut x = self.conv_in.forward(pictures);
        for block in &self.down_blocks {
            x = block.forward(x);
        }
        self.middle(&x)
    }

    /// [`Self::encode`] in strips of `rows` rows of latents.
    fn encode_in_strips(&self, pictures: &Tensor, rows: i64) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let pictures = Strips::cut(pictures, rows * self.factor);
        let first = pictures.into_strips().map(|strip| strip.convolve(&self.conv_in, Tensor::shallow_clone));
        let mut x: Strips = first.collect();
        for block in &self.down_blocks {
            x = block.forward_strips(x);
        }
        self.middle(&x.join())
    }

    /// The coarsest level, from the middle block on.
    fn middle(&self, x: &Tensor) -> Tensor {
        let tape = &mut Tape::off();
        let mut x = self.mid_resnets[0].forward(x, Shift::Bias, tape);
        if let Some(attention) = &self.mid_attention {
            x = attention.forward(&x);
        }
        x = self.mid_resnets[1].forward(&x, Shift::Bias, tape);
        let moments = self.conv_out.forward(&self.conv_norm_out.forward_silu(&x));
        let moments = self.quant_conv.as_ref().map_or_else(|| moments.shallow_clone(), |conv| conv.forward(&moments));
        // Means come first, then the logarithms of variances.
        (moments.narrow(1, 0, self.channels) - self.shift_factor) * self.scaling_factor
    }
}

/// `DownEncoderBlock2D`.
struct DownBlock {
    resnets: Vec<Resnet>,
    /// 3x3 with stride 2, padded to the right and below only.
    downsample: Option<Conv2d>,
}

impl DownBlock {
    /// Block `i` from the finest level down.
    fn load(scope: &Scope, settings: &Settings, i: usize) -> Self {
        let channels = settings.channels[i];
        let before = settings.channels[i.saturating_sub(1)];
        let inputs = |j| if j == 0 { before } else { channels };
        let resnet = |j| Resnet::load(&scope.at("resnets").at(j), inputs(j), channels, settings.groups, EPS);
        let downsample = || Conv2d::load_with(&scope.at("downsamplers.0.conv"), channels, channels, 3, 2, 0);
        Self {
            resnets: (0..settings.layers).map(resnet).collect(),
            downsample: (i + 1 < settings.channels.len()).then(downsample),
        }
    }

    fn forward(&self, mut x: Tensor) -> Tensor {
        for resnet in &self.resnets {
            x = resnet.forward(&x, Shift::Bias, &mut Tape::off());
        }
        match &self.downsample {
            Some(conv) => conv.forward(&x.constant_pad_nd([0, 1, 0, 1])),
            None => x,
        }
    }

    fn forward_strips(&self, mut x: Strips) -> Strips {
        for resnet in &self.resnets {
            x = resnet.forward_strips(x);
        }
        match &self.downsample {
            Some(conv) => x.into_strips().map(|strip| strip.downsample(conv)).collect(),
            None => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::testing::random;

    /// Wherever it is cut, the latents are the same, in both memory orders.
    #[test]
    fn strips_are_seamless() {
        let picture = random(&[2, 3, 8 * 7, 8 * 5]).sigmoid();
        for channels_last in [true, false] {
            let placement = Placement { channels_last, ..Placement::new(Device::Cpu, Kind::Half) };
            let encoder = Encoder::load(&Bundle::demo(), placement).unwrap();
            let whole = encoder.latents(&picture, 1 << 26);
            assert_eq!((whole.size(), whole.kind()), (vec![2, 4, 7, 5], Kind::Float));
            assert!(whole.std(false).double_value(&[]) > 0.05, "uniform latents would prove nothing");
            for rows in [1, 2, 3, 6] {
                let strips = encoder.latents(&picture, rows * 16 * 40 * 8);
                let difference = (strips - &whole).abs().max().double_value(&[]);
                assert!(difference < 2e-5, "{rows} rows: {difference}");
            }
        }
    }
}
