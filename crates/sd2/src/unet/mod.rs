//! The UNet: latents, a timestep and a text to the model's prediction, by diffusers' `UNet2DConditionModel`.
//!
//! Three things are computed apart from the forward, because they do not depend on the latents: [`TimeTable`] (all
//! timesteps of a job), [`TextKeys`] (keys and values of a text for every cross-attention) and [`Text`] (those of a batch).
//!
//! A batch is of windows. Each has the same number of guidance branches, and what comes before the first cross-attention
//! is computed once for all branches of a window. Sample `branch * windows + window` of the output belongs to them.

mod config;
mod resnet;
mod time;
mod transformer;

use tch::{Device, Kind, Tensor};

pub use self::time::{Time, TimeTable};
use self::{
    config::Settings,
    resnet::{Downsample, TimedResnet, Upsample},
    time::TimeEmbedding,
    transformer::Transformer,
};
use crate::{
    Bundle, Result,
    kept::Kept,
    layers::{Conv2d, GroupNorm},
    weights::{Scope, Weights},
};

/// The UNet.
pub struct UNet {
    time_embedding: TimeEmbedding,
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    center_input: bool,
    device: Device,
    kind: Kind,
    /// Height and width of the latents it was trained on: the side of a window.
    pub sample_size: i64,
    /// Channels of the latents.
    pub channels: i64,
    /// Width of the text embeddings it attends to.
    pub text_width: i64,
}

/// Keys and values of one text, for every cross-attention `[1, heads, length, d]`.
pub struct TextKeys(Vec<(Tensor, Tensor)>);

/// The texts of a batch.
pub struct Text {
    /// For every cross-attention `[texts, heads, length, d]`: one text for each sample, or one for each branch.
    keys_values: Vec<(Tensor, Tensor)>,
    windows: i64,
    branches: i64,
}

impl Text {
    /// The texts of a batch, `branches[b][w]` being that of branch `b` of window `w`.
    pub fn of_batch(branches: &[Vec<&TextKeys>]) -> Self {
        let windows = branches[0].len();
        let shared = branches.iter().all(|texts| texts.iter().all(|text| std::ptr::eq(*text, texts[0])));
        let texts: Vec<&TextKeys> =
            branches.iter().flat_map(|texts| texts.iter().take(if shared { 1 } else { windows })).copied().collect();
        let stack = |i: usize| {
            let part = |of: fn(&(Tensor, Tensor)) -> &Tensor| {
                Tensor::cat(&texts.iter().map(|text| of(&text.0[i])).collect::<Vec<_>>(), 0)
            };
            (part(|(k, _)| k), part(|(_, v)| v))
        };
        Self {
            keys_values: (0..texts[0].0.len()).map(stack).collect(),
            windows: windows as i64,
            branches: branches.len() as i64,
        }
    }
}

/// What the parts of the UNet have in common while it is loaded.
struct Common {
    norm_groups: i64,
    norm_eps: f64,
    time_width: i64,
    text_width: i64,
    upcast_attention: bool,
    resnets: usize,
    cross_attentions: usize,
}

impl UNet {
    /// Loads `unet/` of a bundle.
    ///
    /// # Errors
    /// If a file is missing or does not fit; see [`crate::Error`].
    pub fn load(bundle: &Bundle, device: Device, kind: Kind) -> Result<Self> {
        let settings = Settings::read(bundle)?;
        let weights = Weights::open(bundle, "unet", "diffusion_pytorch_model", device, kind)?;
        let root = weights.root();
        let levels = &settings.levels;
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let mut net = Common {
            norm_groups: settings.norm_groups,
            norm_eps: settings.norm_eps,
            time_width: 4 * first.channels,
            text_width: settings.text_width,
            upcast_attention: settings.upcast_attention,
            resnets: 0,
            cross_attentions: 0,
        };
        let down_blocks =
            (0..levels.len()).map(|i| DownBlock::load(&root.at("down_blocks").at(i), &settings, i, &mut net)).collect();
        let mid_block = MidBlock::load(&root.at("mid_block"), last, &mut net);
        let up_blocks =
            (0..levels.len()).map(|i| UpBlock::load(&root.at("up_blocks").at(i), &settings, i, &mut net)).collect();
        let unet = Self {
            time_embedding: TimeEmbedding::load(&root, &settings),
            conv_in: Conv2d::load(&root.at("conv_in"), settings.in_channels, first.channels),
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::load(
                &root.at("conv_norm_out"),
                first.channels,
                settings.norm_groups,
                settings.norm_eps,
            ),
            conv_out: Conv2d::load(&root.at("conv_out"), first.channels, settings.out_channels),
            center_input: settings.center_input,
            device,
            kind,
            sample_size: settings.sample_size,
            channels: settings.in_channels,
            text_width: settings.text_width,
        };
        weights.finish()?;
        Ok(unet)
    }

    /// The projections of timesteps; row `i` is that of `timesteps[i]`.
    pub fn time_table(&self, timesteps: &[i64]) -> TimeTable {
        let embedding = self.time_embedding.forward(timesteps, self.device);
        TimeTable(self.resnets().map(|resnet| resnet.project_time(&embedding)).collect())
    }

    /// The keys and values of a text `[1, length, text width]`.
    pub fn text_keys(&self, embedding: &Tensor) -> TextKeys {
        let mut keys_values = Vec::new();
        for transformer in self.transformers() {
            transformer.project_text(&embedding.to_kind(self.kind), &mut keys_values);
        }
        TextKeys(keys_values)
    }

    /// Latents `[windows, channels, h, w]` to the prediction `[branches * windows, channels, h, w]` in fp32.
    pub fn forward(&self, latents: &Tensor, time: &Time, text: &Text) -> Tensor {
        let x = if self.center_input { latents * 2.0 - 1.0 } else { latents.shallow_clone() };
        let mut x = self.conv_in.forward(&x.to_kind(self.kind));
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down_blocks {
            x = block.forward(x, time, text, &mut skips);
        }
        x = self.mid_block.forward(&x, time, text);
        for block in &self.up_blocks {
            x = block.forward(x, time, text, &mut skips);
        }
        let out = self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)).to_kind(Kind::Float);
        // Only a UNet without any cross-attention gets here with one copy for all branches.
        let copies = text.branches * text.windows / out.size()[0];
        if copies == 1 { out } else { out.repeat([copies, 1, 1, 1]) }
    }

    /// [`Self::forward`], leaving what [`Self::backward`] needs.
    pub fn forward_kept(&self, latents: &Tensor, time: &Time, text: &Text, kept: &mut Kept) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let x = if self.center_input { latents * 2.0 - 1.0 } else { latents.shallow_clone() };
        let mut x = self.conv_in.forward(&x.to_kind(self.kind));
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down_blocks {
            x = block.forward_kept(x, time, text, &mut skips, kept);
        }
        x = self.mid_block.forward_kept(&x, time, text, kept);
        for block in &self.up_blocks {
            x = block.forward_kept(x, time, text, &mut skips, kept);
        }
        kept.push(&x);
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)).to_kind(Kind::Float)
    }

    /// The gradient of the latents `[windows, channels, h, w]`, from that of the prediction. Both are fp32.
    pub fn backward(&self, gradient: &Tensor, text: &Text, kept: &mut Kept) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let x = kept.pop();
        let g = self.conv_out.backward(&gradient.to_kind(self.kind), &x.size());
        let mut g = self.conv_norm_out.backward_silu(&x, &g);
        // The gradients of the skips, the finest first; the way down takes them from the end.
        let mut skips = Vec::new();
        for block in self.up_blocks.iter().rev() {
            g = block.backward(g, text, &mut skips, kept);
        }
        g = self.mid_block.backward(&g, text, kept);
        for block in self.down_blocks.iter().rev() {
            g = block.backward(g, text, &mut skips, kept);
        }
        g += skips.pop().expect("the first skip is the input of the first block");
        let g = self.conv_in.backward(&g, &[]).to_kind(Kind::Float);
        if self.center_input { g * 2.0 } else { g }
    }

    /// All resnets, in the order of their numbers.
    fn resnets(&self) -> impl Iterator<Item = &TimedResnet> {
        let down = self.down_blocks.iter().flat_map(|block| &block.resnets);
        down.chain(&self.mid_block.resnets).chain(self.up_blocks.iter().flat_map(|block| &block.resnets))
    }

    /// All transformers, in the order of the numbers of their blocks.
    fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        let down = self.down_blocks.iter().flat_map(|block| &block.attentions);
        down.chain([&self.mid_block.attention]).chain(self.up_blocks.iter().flat_map(|block| &block.attentions))
    }
}

/// `DownBlock2D` and `CrossAttnDownBlock2D`: the one has no attentions.
struct DownBlock {
    resnets: Vec<TimedResnet>,
    attentions: Vec<Transformer>,
    downsample: Option<Downsample>,
}

impl DownBlock {
    fn load(scope: &Scope, settings: &Settings, i: usize, net: &mut Common) -> Self {
        let level = settings.levels[i];
        let before = settings.levels[i.saturating_sub(1)].channels;
        let inputs = |j| if j == 0 { before } else { level.channels };
        let last = i + 1 == settings.levels.len();
        Self {
            resnets: (0..level.layers)
                .map(|j| TimedResnet::load(&scope.at("resnets").at(j), inputs(j), level.channels, net))
                .collect(),
            attentions: (0..if level.down_attends { level.layers } else { 0 })
                .map(|j| {
                    Transformer::load(&scope.at("attentions").at(j), level.channels, level.heads, level.depth, net)
                })
                .collect(),
            downsample: (!last).then(|| Downsample::load(scope, level.channels, settings.downsample_padding)),
        }
    }

    fn forward(&self, mut x: Tensor, time: &Time, text: &Text, skips: &mut Vec<Tensor>) -> Tensor {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, time);
            if let Some(attention) = self.attentions.get(j) {
                x = attention.forward(&x, text);
            }
            skips.push(x.shallow_clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x);
            skips.push(x.shallow_clone());
        }
        x
    }

    fn forward_kept(
        &self,
        mut x: Tensor,
        time: &Time,
        text: &Text,
        skips: &mut Vec<Tensor>,
        kept: &mut Kept,
    ) -> Tensor {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward_kept(&x, time, kept);
            if let Some(attention) = self.attentions.get(j) {
                x = kept.apply(&x, |x| attention.forward(x, text));
            }
            skips.push(x.shallow_clone());
        }
        if let Some(downsample) = &self.downsample {
            kept.push(&x);
            x = downsample.forward(&x);
            skips.push(x.shallow_clone());
        }
        x
    }

    /// `skips` are the gradients of the skips of this block and the finer ones.
    fn backward(&self, mut g: Tensor, text: &Text, skips: &mut Vec<Tensor>, kept: &mut Kept) -> Tensor {
        let mut skip = || skips.pop().expect("the way up leaves as many gradients as the way down has skips");
        if let Some(downsample) = &self.downsample {
            g += skip();
            g = downsample.backward(&g, &kept.pop().size());
        }
        for (j, resnet) in self.resnets.iter().enumerate().rev() {
            g += skip();
            if let Some(attention) = self.attentions.get(j) {
                g = kept.back(&g, |x| attention.forward(x, text));
            }
            g = resnet.backward(&g, kept);
        }
        g
    }
}

/// `UNetMidBlock2DCrossAttn`.
struct MidBlock {
    resnets: [TimedResnet; 2],
    attention: Transformer,
}

impl MidBlock {
    fn load(scope: &Scope, level: config::Level, net: &mut Common) -> Self {
        let resnets =
            [0, 1].map(|j| TimedResnet::load(&scope.at("resnets").at(j), level.channels, level.channels, net));
        let attention = Transformer::load(&scope.at("attentions.0"), level.channels, level.heads, level.depth, net);
        Self { resnets, attention }
    }

    fn forward(&self, x: &Tensor, time: &Time, text: &Text) -> Tensor {
        let x = self.attention.forward(&self.resnets[0].forward(x, time), text);
        self.resnets[1].forward(&x, time)
    }

    fn forward_kept(&self, x: &Tensor, time: &Time, text: &Text, kept: &mut Kept) -> Tensor {
        let x = self.resnets[0].forward_kept(x, time, kept);
        let x = kept.apply(&x, |x| self.attention.forward(x, text));
        self.resnets[1].forward_kept(&x, time, kept)
    }

    fn backward(&self, g: &Tensor, text: &Text, kept: &mut Kept) -> Tensor {
        let g = self.resnets[1].backward(g, kept);
        let g = kept.back(&g, |x| self.attention.forward(x, text));
        self.resnets[0].backward(&g, kept)
    }
}

/// `UpBlock2D` and `CrossAttnUpBlock2D`: the one has no attentions.
struct UpBlock {
    resnets: Vec<TimedResnet>,
    attentions: Vec<Transformer>,
    upsample: Option<Upsample>,
}

impl UpBlock {
    /// Block `i` from the coarsest level up.
    fn load(scope: &Scope, settings: &Settings, i: usize, net: &mut Common) -> Self {
        let n = settings.levels.len();
        let channels = |from_coarsest: usize| settings.levels[n - 1 - from_coarsest].channels;
        let level = settings.levels[n - 1 - i];
        let finer = channels((i + 1).min(n - 1));
        let before = if i == 0 { channels(0) } else { channels(i - 1) };
        // One resnet more than on the way down: the last skip is that of the downsampling above.
        let resnets = level.layers + 1;
        let inputs = |j| if j == 0 { before } else { level.channels };
        let skip = |j| if j == resnets - 1 { finer } else { level.channels };
        Self {
            resnets: (0..resnets)
                .map(|j| TimedResnet::load(&scope.at("resnets").at(j), inputs(j) + skip(j), level.channels, net))
                .collect(),
            attentions: (0..if settings.up_attends[n - 1 - i] { resnets } else { 0 })
                .map(|j| {
                    Transformer::load(&scope.at("attentions").at(j), level.channels, level.heads, level.depth, net)
                })
                .collect(),
            upsample: (i + 1 < n).then(|| Upsample::load(scope, level.channels)),
        }
    }

    fn forward(&self, mut x: Tensor, time: &Time, text: &Text, skips: &mut Vec<Tensor>) -> Tensor {
        for (j, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the way up takes as many skips as the way down leaves");
            x = resnet.forward(&join(&x, &skip), time);
            if let Some(attention) = self.attentions.get(j) {
                x = attention.forward(&x, text);
            }
        }
        self.grow(x, skips)
    }

    fn grow(&self, x: Tensor, skips: &[Tensor]) -> Tensor {
        match (&self.upsample, skips.last()) {
            (Some(upsample), Some(finer)) => {
                let size = finer.size();
                upsample.forward(&x, [size[2], size[3]])
            }
            _ => x,
        }
    }

    fn forward_kept(
        &self,
        mut x: Tensor,
        time: &Time,
        text: &Text,
        skips: &mut Vec<Tensor>,
        kept: &mut Kept,
    ) -> Tensor {
        for (j, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the way up takes as many skips as the way down leaves");
            // Only their sizes are asked for.
            kept.push(&x);
            kept.push(&skip);
            x = resnet.forward_kept(&join(&x, &skip), time, kept);
            if let Some(attention) = self.attentions.get(j) {
                x = kept.apply(&x, |x| attention.forward(x, text));
            }
        }
        kept.push(&x);
        self.grow(x, skips)
    }

    /// Appends the gradients of the skips to `skips`.
    fn backward(&self, mut g: Tensor, text: &Text, skips: &mut Vec<Tensor>, kept: &mut Kept) -> Tensor {
        let size = kept.pop().size();
        if let Some(upsample) = &self.upsample {
            g = upsample.backward(&g, [size[2], size[3]]);
        }
        for (j, resnet) in self.resnets.iter().enumerate().rev() {
            if let Some(attention) = self.attentions.get(j) {
                g = kept.back(&g, |x| attention.forward(x, text));
            }
            g = resnet.backward(&g, kept);
            let (skip, x) = (kept.pop().size(), kept.pop().size());
            skips.push(part(&g, x[1], &skip));
            g = g.narrow(1, 0, x[1]).contiguous();
        }
        g
    }
}

/// Joins the channels of a feature map and its skip; where only one of them is from after the guidance branches part,
/// the other is used for every branch.
fn join(x: &Tensor, skip: &Tensor) -> Tensor {
    let (n, c, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
    let (m, d, ..) = skip.size4().expect("feature maps are [n, channels, h, w]");
    if n == m {
        return Tensor::cat(&[x, skip], 1);
    }
    let skip = skip.unsqueeze(0).expand([n / m, m, d, h, w], false);
    Tensor::cat(&[x.reshape([n / m, m, c, h, w]), skip], 2).view([n, c + d, h, w])
}

/// The gradient of a skip of the size `skip`, from that of a [`join`] in which it stood after `before` channels.
fn part(gradient: &Tensor, before: i64, skip: &[i64]) -> Tensor {
    let part = gradient.narrow(1, before, skip[1]);
    let copies = part.size()[0] / skip[0];
    if copies == 1 {
        return part.contiguous();
    }
    part.reshape([copies, skip[0], skip[1], skip[2], skip[3]]).sum_dim_intlist([0].as_slice(), false, part.kind())
}
