//! The decoder of the VAE: latents to pictures, by diffusers' `AutoencoderKL`.
//!
//! The encoder's weights, which most files hold too, are left where they are: nothing here makes latents of pictures.

use tch::{Device, Kind, Tensor};

use crate::{
    Bundle, Result,
    config::Config,
    kept::{Kept, upsample_back},
    layers::{Conv2d, GroupNorm, Linear, attention},
    resnet::{Resnet, Shift},
    weights::{Scope, Weights},
};

/// Epsilon of all norms of the VAE.
const EPS: f64 = 1e-6;

/// The decoder.
pub struct Decoder {
    post_quant_conv: Option<Conv2d>,
    conv_in: Conv2d,
    mid_resnets: [Resnet; 2],
    mid_attention: Option<Attention>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    scaling_factor: f64,
    shift_factor: f64,
    kind: Kind,
    /// Channels of the latents.
    pub channels: i64,
    /// Pixels per latent, along each axis.
    pub factor: i64,
}

/// `vae/config.json`, as far as it concerns the decoder.
struct Settings {
    /// From the finest to the coarsest.
    channels: Vec<i64>,
    layers: i64,
    groups: i64,
    latent_channels: i64,
    scaling_factor: f64,
    shift_factor: f64,
    post_quant_conv: bool,
    mid_attention: bool,
}

impl Settings {
    fn read(bundle: &Bundle) -> Result<Self> {
        let mut c = Config::read(bundle, "vae/config.json", &["AutoencoderKL"])?;
        let channels: Vec<i64> = c.or("block_out_channels", vec![64]);
        let settings = Self {
            layers: c.size("layers_per_block", Some(1)),
            groups: c.size("norm_num_groups", Some(32)),
            latent_channels: c.size("latent_channels", Some(4)),
            scaling_factor: c.or("scaling_factor", 0.18215),
            shift_factor: c.or("shift_factor", 0.0),
            post_quant_conv: c.or("use_post_quant_conv", true),
            mid_attention: c.or("mid_block_add_attention", true),
            channels,
        };
        if settings.channels.is_empty() || settings.channels.iter().any(|&n| n < 1 || n % settings.groups != 0) {
            c.problem(format!(
                "`block_out_channels` is `{:?}`, not a list of multiples of `norm_num_groups` {}",
                settings.channels, settings.groups
            ));
        }
        for (key, block) in [("up_block_types", "UpDecoderBlock2D"), ("down_block_types", "DownEncoderBlock2D")] {
            let types: Vec<String> = c.or(key, vec![block.to_owned()]);
            if types.len() != settings.channels.len() || types.iter().any(|kind| kind != block) {
                c.problem(format!("`{key}` is `{types:?}`; supported: {} of `{block}`", settings.channels.len()));
            }
        }
        c.only("act_fn", "silu");
        c.only("in_channels", 3);
        c.only("out_channels", 3);
        c.none(&["latents_mean", "latents_std"]);
        // Of the encoder, or advice on dtypes and on sizes of training pictures.
        c.ignore(&["use_quant_conv", "force_upcast", "sample_size"]);
        c.finish()?;
        Ok(settings)
    }
}

impl Decoder {
    /// Loads the decoder of `vae/` of a bundle.
    ///
    /// # Errors
    /// If a file is missing or does not fit; see [`crate::Error`].
    pub fn load(bundle: &Bundle, device: Device, kind: Kind) -> Result<Self> {
        let settings = Settings::read(bundle)?;
        let weights = Weights::open(bundle, "vae", "diffusion_pytorch_model", device, kind)?;
        weights.ignore(|name| name.starts_with("encoder.") || name.starts_with("quant_conv."));
        let root = weights.root();
        let (scope, latents) = (root.at("decoder"), settings.latent_channels);
        let coarsest = *settings.channels.last().expect("the settings were checked");
        let mid = scope.at("mid_block");
        let decoder = Self {
            post_quant_conv: settings
                .post_quant_conv
                .then(|| Conv2d::load_with(&root.at("post_quant_conv"), latents, latents, 1, 1, 0)),
            conv_in: Conv2d::load(&scope.at("conv_in"), latents, coarsest),
            mid_resnets: [0, 1]
                .map(|j| Resnet::load(&mid.at("resnets").at(j), coarsest, coarsest, settings.groups, EPS)),
            mid_attention: settings
                .mid_attention
                .then(|| Attention::load(&mid.at("attentions.0"), coarsest, settings.groups)),
            up_blocks: (0..settings.channels.len())
                .map(|i| UpBlock::load(&scope.at("up_blocks").at(i), &settings, i))
                .collect(),
            conv_norm_out: GroupNorm::load(&scope.at("conv_norm_out"), settings.channels[0], settings.groups, EPS),
            conv_out: Conv2d::load(&scope.at("conv_out"), settings.channels[0], 3),
            scaling_factor: settings.scaling_factor,
            shift_factor: settings.shift_factor,
            kind,
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

    /// The same as the network gives them: about -1..1, not clamped.
    pub fn forward(&self, latents: &Tensor) -> Tensor {
        let mut x = self.mid_resnets[0].forward(&self.stem(latents), Shift::Bias);
        if let Some(attention) = &self.mid_attention {
            x = attention.forward(&x);
        }
        x = self.mid_resnets[1].forward(&x, Shift::Bias);
        for block in &self.up_blocks {
            x = block.forward(x);
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)).to_kind(Kind::Float)
    }

    /// [`Self::pictures`], leaving what [`Self::pictures_backward`] needs.
    pub fn pictures_kept(&self, latents: &Tensor, kept: &mut Kept) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let mut x = self.mid_resnets[0].forward_kept(&self.stem(latents), Shift::Bias, kept);
        if let Some(attention) = &self.mid_attention {
            x = kept.apply(&x, |x| attention.forward(x));
        }
        x = self.mid_resnets[1].forward_kept(&x, Shift::Bias, kept);
        for block in &self.up_blocks {
            x = block.forward_kept(x, kept);
        }
        kept.push(&x);
        let picture = self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)).to_kind(Kind::Float);
        kept.push(&picture);
        clamp(&picture)
    }

    /// The gradient of the latents, in fp32, from that of the clamped pictures.
    pub fn pictures_backward(&self, gradient: &Tensor, kept: &mut Kept) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let picture = kept.pop();
        // What the clamp cut has no gradient; its bounds themselves have.
        let inside = picture.ge(-1.0).logical_and(&picture.le(1.0));
        let mut g = (gradient * inside / 2.0).to_kind(self.kind);
        let x = kept.pop();
        g = self.conv_norm_out.backward_silu(&x, &self.conv_out.backward(&g, &x.size()));
        for block in self.up_blocks.iter().rev() {
            g = block.backward(g, kept);
        }
        g = self.mid_resnets[1].backward(&g, kept);
        if let Some(attention) = &self.mid_attention {
            g = kept.back(&g, |x| attention.forward(x));
        }
        g = self.mid_resnets[0].backward(&g, kept);
        g = self.conv_in.backward(&g, &[]);
        if let Some(conv) = &self.post_quant_conv {
            g = conv.backward(&g, &[]);
        }
        g.to_kind(Kind::Float) / self.scaling_factor
    }

    /// What comes before the middle block.
    fn stem(&self, latents: &Tensor) -> Tensor {
        let x = (latents / self.scaling_factor + self.shift_factor).to_kind(self.kind);
        match &self.post_quant_conv {
            Some(conv) => self.conv_in.forward(&conv.forward(&x)),
            None => self.conv_in.forward(&x),
        }
    }
}

fn clamp(picture: &Tensor) -> Tensor {
    (picture / 2.0 + 0.5).clamp(0.0, 1.0)
}

/// The attention of the middle block, with one head. Checkpoints from before 2023 use other names.
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn load(scope: &Scope, channels: i64, groups: i64) -> Self {
        let projection = |names: &[&str]| Linear::or_conv(&scope.either(names), channels, channels);
        Self {
            group_norm: GroupNorm::load(&scope.at("group_norm"), channels, groups, EPS),
            to_q: projection(&["to_q", "query"]),
            to_k: projection(&["to_k", "key"]),
            to_v: projection(&["to_v", "value"]),
            to_out: projection(&["to_out.0", "proj_attn"]),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (n, channels, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
        let pixels = self.group_norm.forward(x).view([n, channels, h * w]).transpose(1, 2);
        let project = |to: &Linear| to.forward(&pixels).unsqueeze(1);
        let hidden = attention(&project(&self.to_q), &project(&self.to_k), &project(&self.to_v), false);
        x + self.to_out.forward(&hidden.squeeze_dim(1)).transpose(1, 2).reshape([n, channels, h, w])
    }
}

/// `UpDecoderBlock2D`.
struct UpBlock {
    resnets: Vec<Resnet>,
    upsample: Option<Conv2d>,
}

impl UpBlock {
    /// Block `i` from the coarsest level up.
    fn load(scope: &Scope, settings: &Settings, i: usize) -> Self {
        let n = settings.channels.len();
        let channels = settings.channels[n - 1 - i];
        let before = settings.channels[(n - i).min(n - 1)];
        let inputs = |j| if j == 0 { before } else { channels };
        Self {
            resnets: (0..=settings.layers)
                .map(|j| Resnet::load(&scope.at("resnets").at(j), inputs(j), channels, settings.groups, EPS))
                .collect(),
            upsample: (i + 1 < n).then(|| Conv2d::load(&scope.at("upsamplers.0.conv"), channels, channels)),
        }
    }

    fn forward(&self, mut x: Tensor) -> Tensor {
        for resnet in &self.resnets {
            x = resnet.forward(&x, Shift::Bias);
        }
        self.grow(x)
    }

    fn forward_kept(&self, mut x: Tensor, kept: &mut Kept) -> Tensor {
        for resnet in &self.resnets {
            x = resnet.forward_kept(&x, Shift::Bias, kept);
        }
        self.grow(x)
    }

    fn grow(&self, x: Tensor) -> Tensor {
        match &self.upsample {
            Some(conv) => {
                let size = x.size();
                conv.forward(&x.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None))
            }
            None => x,
        }
    }

    fn backward(&self, mut g: Tensor, kept: &mut Kept) -> Tensor {
        if let Some(conv) = &self.upsample {
            let size = g.size();
            g = upsample_back(&conv.backward(&g, &size), [size[2] / 2, size[3] / 2]);
        }
        for resnet in self.resnets.iter().rev() {
            g = resnet.backward(&g, kept);
        }
        g
    }
}
