//! The decoder: latents to pictures.
//!
//! The residual stream, to which every block adds, may leave the range of f16. What reads it is either a norm, which
//! gives the same for a multiple of its input, or linear. So the stream can be divided by a power of two when the
//! weights are loaded ([`Placement::stream_exponent`]), and the picture remains the same.

use tch::{Kind, Tensor};

use super::attention::Attention;
use super::settings::{EPS, Settings};
use crate::load::weights::{Scope, Weights};
use crate::load::{Bundle, Result};
use crate::nn::gradient_scale::gradient_scale;
use crate::nn::layers::{Conv2d, GroupNorm};
use crate::nn::resnet::{Resnet, Shift};
use crate::nn::tape::{Checkpointing, Tape};
use crate::nn::upsample::UpConv2d;
use crate::placement::Placement;

/// The decoder.
pub struct Decoder {
    post_quant_conv: Option<Conv2d>,
    conv_in: Conv2d,
    mid_resnets: [Resnet; 2],
    pub(super) mid_attention: Option<Attention>,
    pub(super) up_blocks: Vec<UpBlock>,
    pub(super) conv_norm_out: GroupNorm,
    pub(super) conv_out: Conv2d,
    scaling_factor: f64,
    shift_factor: f64,
    /// Channels of the widest feature map on the finest level.
    pub(super) finest_inputs: i64,
    kind: Kind,
    /// Channels of the latents.
    pub channels: i64,
    /// Pixels per latent, along each axis.
    pub factor: i64,
}

impl Decoder {
    /// Loads the decoder of `vae/` of a bundle.
    ///
    /// # Errors
    /// If a file is missing or does not match; see [`crate::Error`].
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        let settings = Settings::read(bundle)?;
        let weights = Weights::open(bundle, "vae", "diffusion_pytorch_model", placement, placement.picture_kind)?;
        weights.ignore(|name| name.starts_with("encoder.") || name.starts_with("quant_conv."));
        let root = weights.root();
        let (scope, latents) = (root.at("decoder"), settings.latent_channels);
        let scale = 2f64.powi(-placement.stream_exponent);
        let coarsest = *settings.channels.last().expect("the settings were checked");
        let mid = scope.at("mid_block");
        let decoder = Self {
            post_quant_conv: settings
                .post_quant_conv
                .then(|| Conv2d::load_with(&root.at("post_quant_conv"), latents, latents, 1, 1, 0)),
            conv_in: Conv2d::load(&scope.at("conv_in"), latents, coarsest).scaled(scale),
            mid_resnets: [0, 1].map(|j| {
                Resnet::load_scaled(&mid.at("resnets").at(j), coarsest, coarsest, settings.groups, EPS, scale)
            }),
            mid_attention: settings
                .mid_attention
                .then(|| Attention::load(&mid.at("attentions.0"), coarsest, settings.groups, scale)),
            up_blocks: (0..settings.channels.len())
                .map(|i| UpBlock::load(&scope.at("up_blocks").at(i), &settings, i, scale))
                .collect(),
            conv_norm_out: GroupNorm::load(
                &scope.at("conv_norm_out"),
                settings.channels[0],
                settings.groups,
                EPS * scale * scale,
            ),
            conv_out: Conv2d::load(&scope.at("conv_out"), settings.channels[0], 3),
            scaling_factor: settings.scaling_factor,
            shift_factor: settings.shift_factor,
            finest_inputs: settings.channels.iter().take(2).copied().max().expect("the settings were checked"),
            kind: placement.picture_kind,
            channels: latents,
            factor: 1 << (settings.channels.len() - 1),
        };
        weights.finish()?;
        Ok(decoder)
    }

    /// Latents `[n, 4, h, w]` to pictures `[n, 3, factor * h, factor * w]` in fp32, clamped to 0..1.
    pub fn pictures(&self, latents: &Tensor) -> Tensor {
        clamp(&self.forward(latents))
    }

    /// [`Self::pictures`] for [`Self::pictures_backward`]: the pictures, and the tape of the pass.
    pub fn pictures_recorded(&self, latents: &Tensor, checkpointing: Checkpointing) -> (Tensor, Tape) {
        let mut tape = Tape::new(checkpointing);
        let pictures = self.forward_on(&mut tape, latents);
        tape.push(&pictures);
        (clamp(&pictures), tape)
    }

    /// The output of the network: pictures in about -1..1, not clamped.
    pub fn forward(&self, latents: &Tensor) -> Tensor {
        self.forward_on(&mut Tape::off(), latents)
    }

    fn forward_on(&self, tape: &mut Tape, latents: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let mut x = self.middle(latents, tape);
        for block in &self.up_blocks {
            x = block.forward(x, tape);
        }
        tape.push(&x);
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)).to_kind(Kind::Float)
    }

    /// The gradient of the latents, in fp32, from that of the clamped pictures.
    pub fn pictures_backward(&self, gradient: &Tensor, mut tape: Tape) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let tape = &mut tape;
        let picture = tape.pop();
        // Clamped numbers have no gradient; those at the bounds have.
        let inside = picture.ge(-1.0).logical_and(&picture.le(1.0));
        let gradient = gradient * inside / 2.0;
        // Only f16 needs it.
        let scale = (self.kind == Kind::Half).then(|| gradient_scale(&gradient, 1));
        let gradient = if let Some(scale) = &scale { gradient / scale } else { gradient };
        let mut g = gradient.to_kind(self.kind);
        let x = tape.pop();
        g = self.conv_norm_out.backward_silu(&x, &self.conv_out.backward(&g, &x.size()));
        for block in self.up_blocks.iter().rev() {
            g = block.backward(g, tape);
        }
        g = self.mid_resnets[1].backward(&g, tape);
        if let Some(attention) = &self.mid_attention {
            g = tape.backward(&g, |x| attention.forward(x));
        }
        g = self.mid_resnets[0].backward(&g, tape);
        g = self.conv_in.backward(&g, &g.size());
        if let Some(conv) = &self.post_quant_conv {
            g = conv.backward(&g, &g.size());
        }
        let g = g.to_kind(Kind::Float);
        let g = if let Some(scale) = scale { g * scale } else { g };
        g / self.scaling_factor
    }

    /// The coarsest level, up to the end of the middle block.
    fn middle(&self, latents: &Tensor, tape: &mut Tape) -> Tensor {
        let mut x = self.before_attention(latents, tape);
        if let Some(attention) = &self.mid_attention {
            x = tape.record(&x, |x| attention.forward(x));
        }
        self.after_attention(&x, tape)
    }

    pub(super) fn before_attention(&self, latents: &Tensor, tape: &mut Tape) -> Tensor {
        let x = (latents / self.scaling_factor + self.shift_factor).to_kind(self.kind);
        let x = match &self.post_quant_conv {
            Some(conv) => self.conv_in.forward(&conv.forward(&x)),
            None => self.conv_in.forward(&x),
        };
        self.mid_resnets[0].forward(&x, Shift::Bias, tape)
    }

    pub(super) fn after_attention(&self, x: &Tensor, tape: &mut Tape) -> Tensor {
        self.mid_resnets[1].forward(x, Shift::Bias, tape)
    }
}

/// Numbers of about -1..1 in 0..1.
pub(super) fn clamp(picture: &Tensor) -> Tensor {
    (picture / 2.0 + 0.5).clamp(0.0, 1.0)
}

/// `UpDecoderBlock2D`.
pub(super) struct UpBlock {
    pub(super) resnets: Vec<Resnet>,
    pub(super) upsample: Option<UpConv2d>,
}

impl UpBlock {
    /// Block `i` from the coarsest level up, for an input that is multiplied by `scale`.
    fn load(scope: &Scope, settings: &Settings, i: usize, scale: f64) -> Self {
        let n = settings.channels.len();
        let channels = settings.channels[n - 1 - i];
        let before = settings.channels[(n - i).min(n - 1)];
        let inputs = |j| if j == 0 { before } else { channels };
        let resnet =
            |j| Resnet::load_scaled(&scope.at("resnets").at(j), inputs(j), channels, settings.groups, EPS, scale);
        let upsample = || UpConv2d::load(&scope.at("upsamplers.0.conv"), channels, channels).with_scaled_bias(scale);
        Self { resnets: (0..=settings.layers).map(resnet).collect(), upsample: (i + 1 < n).then(upsample) }
    }

    fn forward(&self, mut x: Tensor, tape: &mut Tape) -> Tensor {
        for resnet in &self.resnets {
            x = resnet.forward(&x, Shift::Bias, tape);
        }
        match &self.upsample {
            Some(conv) => conv.forward(&x),
            None => x,
        }
    }

    fn backward(&self, mut g: Tensor, tape: &mut Tape) -> Tensor {
        if let Some(conv) = &self.upsample {
            let size = g.size();
            g = conv.backward(&g, [size[2] / 2, size[3] / 2]);
        }
        for resnet in self.resnets.iter().rev() {
            g = resnet.backward(&g, tape);
        }
        g
    }
}
