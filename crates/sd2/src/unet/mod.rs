//! The UNet: latents, a timestep and a text to the model's prediction, by diffusers' `UNet2DConditionModel`.
//!
//! What does not depend on the latents is computed apart from the forward pass: [`TimeTable`] (all timesteps of a job),
//! [`TextKeys`] (keys and values of a text for every cross-attention) and [`Text`] (those of a batch).
//!
//! A batch consists of windows with the same number of guidance branches. Everything before the first cross-attention
//! is computed once for all branches of a window. Sample `branch * windows + window` of the output is that of a branch.

mod blocks;
mod config;
mod resnet;
mod text;
mod time;
mod transformer;

use tch::{Device, Kind, Tensor};

use self::blocks::{DownBlock, MidBlock, UpBlock};
pub(crate) use self::config::kind_of;
use self::config::{LoadContext, Settings};
use self::resnet::TimedResnet;
pub use self::text::{Mixture, Text, TextKeys};
use self::time::TimeEmbedding;
pub use self::time::{Time, TimeTable};
use self::transformer::Transformer;
use crate::layout::copies;
use crate::load::weights::Weights;
use crate::load::{Bundle, Result};
use crate::nn::gradient_scale::gradient_scale;
use crate::nn::layers::{Conv2d, GroupNorm};
use crate::nn::tape::{Checkpointing, Tape};
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

impl UNet {
    /// Loads `unet/` of a bundle.
    ///
    /// # Errors
    /// If a file is missing or does not match; see [`crate::Error`].
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        let settings = Settings::read(bundle)?;
        let weights = Weights::open(bundle, "unet", "diffusion_pytorch_model", placement, placement.kind)?;
        let root = weights.root();
        let levels = &settings.levels;
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let mut context = LoadContext::new(&settings, placement);
        let down_blocks = (0..levels.len())
            .map(|i| DownBlock::load(&root.at("down_blocks").at(i), &settings, i, &mut context))
            .collect();
        let mid_block = MidBlock::load(&root.at("mid_block"), last, &mut context);
        let up_blocks =
            (0..levels.len()).map(|i| UpBlock::load(&root.at("up_blocks").at(i), &settings, i, &mut context)).collect();
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

    /// The projections of timesteps. Row `i` is that of `timesteps[i]`.
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
        self.forward_on(&mut Tape::off(), latents, time, text)
    }

    /// [`Self::forward`] for [`Self::backward`]: the prediction, and the tape of the pass.
    pub fn forward_recorded(
        &self,
        latents: &Tensor,
        time: &Time,
        text: &Text,
        checkpointing: Checkpointing,
    ) -> (Tensor, Tape) {
        let mut tape = Tape::new(checkpointing);
        (self.forward_on(&mut tape, latents, time, text), tape)
    }

    fn forward_on(&self, tape: &mut Tape, latents: &Tensor, time: &Time, text: &Text) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let x = if self.center_input { latents * 2.0 - 1.0 } else { latents.shallow_clone() };
        let mut x = self.conv_in.forward(&x.to_kind(self.kind));
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down_blocks {
            x = block.forward(x, time, text, &mut skips, tape);
        }
        x = self.mid_block.forward(&x, time, text, tape);
        for block in &self.up_blocks {
            x = block.forward(x, time, text, &mut skips, tape);
        }
        tape.push(&x);
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)).to_kind(Kind::Float)
    }

    /// The gradient of the latents `[windows, channels, h, w]`, from that of the prediction. Both are fp32.
    pub fn backward(&self, gradient: &Tensor, text: &Text, mut tape: Tape) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let tape = &mut tape;
        let x = tape.pop();
        let scale = gradient_scale(gradient, text.branches);
        let g = self.conv_out.backward(&(gradient / copies(&scale, text.branches)).to_kind(self.kind), &x.size());
        let mut g = self.conv_norm_out.backward_silu(&x, &g);
        // The gradients of the skips, the finest first. The down blocks pop them.
        let mut skips = Vec::new();
        for block in self.up_blocks.iter().rev() {
            g = block.backward(g, text, &mut skips, tape);
        }
        g = self.mid_block.backward(&g, text, tape);
        for block in self.down_blocks.iter().rev() {
            g = block.backward(g, text, &mut skips, tape);
        }
        g += skips.pop().expect("the first skip is the input of the first block");
        let g = self.conv_in.backward(&g, &g.size()).to_kind(Kind::Float) * scale;
        if self.center_input { g * 2.0 } else { g }
    }

    /// All resnets, by their indices.
    fn resnets(&self) -> impl Iterator<Item = &TimedResnet> {
        let down = self.down_blocks.iter().flat_map(|block| &block.resnets);
        down.chain(&self.mid_block.resnets).chain(self.up_blocks.iter().flat_map(|block| &block.resnets))
    }

    /// All transformers, by the indices of their blocks.
    fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        let down = self.down_blocks.iter().flat_map(|block| &block.attentions);
        down.chain([&self.mid_block.attention]).chain(self.up_blocks.iter().flat_map(|block| &block.attentions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, relative_error};

    /// With and without `upcast_attention`, in the memory order of a GPU: fused attention sums up in fp32 anyway.
    #[test]
    fn attention_in_16_bit_needs_no_fp32() {
        let bundle = Bundle::open(fixtures::path("bundles/v")).unwrap();
        let in_f32 = Placement::new(Device::Cpu, Kind::Float);
        let width = UNet::load(&bundle, in_f32).unwrap().text_width;
        let (latents, embedding) = (random(&[2, 4, 16, 16]), random(&[1, 77, width]));
        let output = |placement: Placement| {
            let unet = UNet::load(&bundle, placement).unwrap();
            let text = Text::of_batch(&[vec![&unet.text_keys(&embedding); 2]]);
            let times = unet.time_table(&[500]);
            unet.forward(&latents, &Time::of_batch(&[(&times, 0), (&times, 0)]), &text)
        };
        let exact = output(in_f32);
        for kind in [Kind::Half, Kind::BFloat16] {
            let [with, without] = [true, false].map(|upcast_attention| {
                let placement = Placement::new(Device::Cpu, kind);
                output(Placement { channels_last: false, upcast_attention, ..placement })
            });
            assert!(!with.equal(&without), "the key makes no difference");
            let [with, without] = [with, without].map(|output| relative_error(&output, &exact));
            assert!(without < 1.5 * with, "{kind:?}: {without} without, {with} with");
        }
        let gpu = |kind| Placement::new(Device::Cuda(0), kind).upcast_attention;
        assert!(gpu(Kind::Float) && !gpu(Kind::Half) && !gpu(Kind::BFloat16));
    }

    /// In f16, which has nothing between 0 and 6e-8.
    #[test]
    fn small_gradients_do_not_underflow() {
        let unet = UNet::load(&Bundle::demo(), Placement::new(Device::Cpu, Kind::Half)).unwrap();
        let texts = [0, 1].map(|_| unet.text_keys(&random(&[1, 77, unet.text_width])));
        let text = Text::of_batch(&texts.each_ref().map(|text| vec![text; 2]));
        let times = unet.time_table(&[500]);
        let latents = random(&[2, 4, 16, 16]);
        let backward = |gradient: &Tensor| {
            let time = Time::of_batch(&[(&times, 0), (&times, 0)]);
            let (_, tape) = unet.forward_recorded(&latents, &time, &text, Checkpointing::Off);
            unet.backward(gradient, &text, tape)
        };
        let gradient = random(&[4, 4, 16, 16]);
        let expected = backward(&gradient);
        assert!(expected.std(false).double_value(&[]) > 0.1, "a gradient of zeros would prove nothing");
        // The gradient of one window is tiny, that of the other is not.
        let factors = Tensor::from_slice(&[2f32.powi(-40), 1.0]).view([2, 1, 1, 1]);
        let found = backward(&(gradient * factors.repeat([2, 1, 1, 1]))) / factors;
        assert!(found.equal(&expected));
    }
}
