//! The UNet: latents, a timestep and a text to the model's prediction, by diffusers' `UNet2DConditionModel`.
//!
//! Three things are computed apart from the forward, because they do not depend on the latents: [`TimeTable`] (all
//! timesteps of a job), [`TextKeys`] (keys and values of a text for every cross-attention) and [`Text`] (those of a batch).
//!
//! A batch is of windows. Each has the same number of guidance branches, and what comes before the first cross-attention
//! is computed once for all branches of a window. Sample `branch * windows + window` of the output belongs to them.

mod blocks;
mod config;
mod resnet;
mod time;
mod transformer;

use tch::{Device, Kind, Tensor};

use self::blocks::{DownBlock, MidBlock, UpBlock};
use self::config::Settings;
use self::resnet::TimedResnet;
use self::time::TimeEmbedding;
pub use self::time::{Time, TimeTable};
use self::transformer::Transformer;
use crate::layout::copies;
use crate::load::weights::Weights;
use crate::load::{Bundle, Result};
use crate::nn::layers::{Conv2d, GroupNorm};
use crate::nn::tape::Kept;
use crate::placement::Placement;

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
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        let settings = Settings::read(bundle)?;
        let weights = Weights::open(bundle, "unet", "diffusion_pytorch_model", placement, placement.kind)?;
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
            device: placement.device,
            kind: placement.kind,
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

    /// Latents `[windows, channels, h, w]` to the prediction `[branches * windows, channels, h, w]` in fp32, leaving what
    /// [`Self::backward`] needs.
    pub fn forward(&self, latents: &Tensor, time: &Time, text: &Text, kept: &mut Kept) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let x = if self.center_input { latents * 2.0 - 1.0 } else { latents.shallow_clone() };
        let mut x = self.conv_in.forward(&x.to_kind(self.kind));
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down_blocks {
            x = block.forward(x, time, text, &mut skips, kept);
        }
        x = self.mid_block.forward(&x, time, text, kept);
        for block in &self.up_blocks {
            x = block.forward(x, time, text, &mut skips, kept);
        }
        kept.push(&x);
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)).to_kind(Kind::Float)
    }

    /// The gradient of the latents `[windows, channels, h, w]`, from that of the prediction. Both are fp32.
    pub fn backward(&self, gradient: &Tensor, text: &Text, kept: &mut Kept) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let x = kept.pop();
        let unit = unit(gradient, text);
        let g = self.conv_out.backward(&(gradient / copies(&unit, text.branches)).to_kind(self.kind), &x.size());
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
        let g = self.conv_in.backward(&g, &g.size()).to_kind(Kind::Float) * unit;
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

/// The largest number of each window's gradient is brought to half of this or more. f16 holds numbers a thousand times
/// as large, and a million times as small.
const LARGEST_GRADIENT: f64 = 64.0;

/// What to divide the gradients of windows by, `[windows, 1, 1, 1]`: the more pixels a distance is the mean of, the smaller
/// they are, and f16 would make nothing of them. They are powers of two, so that nothing is rounded, and never 0.
fn unit(gradient: &Tensor, text: &Text) -> Tensor {
    let largest =
        gradient.abs().view([text.branches, text.windows, -1]).amax([0, 2].as_slice(), false).clamp_min(1e-30);
    // A number without its mantissa is a power of two.
    let (mantissa, _) = largest.frexp();
    (largest / mantissa / LARGEST_GRADIENT).view([-1, 1, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    /// Not even in f16, which has nothing between 0 and 6e-8.
    #[test]
    fn small_gradients_do_not_vanish() {
        let unet = UNet::load(&Bundle::demo(), Placement::new(Device::Cpu, Kind::Half)).unwrap();
        let texts = [0, 1].map(|_| unet.text_keys(&random(&[1, 77, unet.text_width])));
        let text = Text::of_batch(&texts.each_ref().map(|text| vec![text; 2]));
        let times = unet.time_table(&[500]);
        let latents = random(&[2, 4, 16, 16]);
        let back = |gradient: &Tensor| {
            let mut kept = Kept::new(false);
            let _ = unet.forward(&latents, &Time::of_batch(&[(&times, 0), (&times, 0)]), &text, &mut kept);
            unet.backward(gradient, &text, &mut kept)
        };
        let gradient = random(&[4, 4, 16, 16]);
        let expected = back(&gradient);
        assert!(expected.std(false).double_value(&[]) > 0.1, "a gradient of nothing would prove nothing");
        // A window's is as small as it likes, beside another.
        let factors = Tensor::from_slice(&[2f32.powi(-40), 1.0]).view([2, 1, 1, 1]);
        let found = back(&(gradient * factors.repeat([2, 1, 1, 1]))) / factors;
        assert!(found.equal(&expected));
    }
}
