//! The resnets of the UNet, which depend on the timestep, and the downsampling between levels.

use tch::{Kind, Tensor};

use super::config::LoadContext;
use super::time::Time;
use crate::load::weights::Scope;
use crate::nn::layers::{Conv2d, Linear};
use crate::nn::resnet::{Resnet, Shift};
use crate::nn::tape::Tape;

/// A resnet and its projection of the time embedding.
pub(crate) struct TimedResnet {
    resnet: Resnet,
    time_emb_proj: Linear,
    /// Its index among the resnets of the UNet, and so in a time table.
    index: usize,
}

impl TimedResnet {
    pub(crate) fn load(scope: &Scope, inputs: i64, outputs: i64, context: &mut LoadContext) -> Self {
        Self {
            resnet: Resnet::load(scope, inputs, outputs, context.norm_groups, context.norm_eps),
            time_emb_proj: Linear::load(&scope.at("time_emb_proj"), context.time_width, outputs),
            index: context.next_resnet(),
        }
    }

    /// This resnet's column of a time table: `[n, time width]` after SiLU to `[n, outputs]`.
    pub(crate) fn project_time(&self, embedding: &Tensor) -> Tensor {
        let conv1 = &self.resnet.conv1;
        (self.time_emb_proj.forward_f32(embedding) + conv1.bias.to_kind(Kind::Float)).to_kind(conv1.weight.kind())
    }

    /// `[n, inputs, h, w]` to `[n, outputs, h, w]`; `n` is a multiple of the windows that `time` has rows for.
    pub(crate) fn forward(&self, x: &Tensor, time: &Time, tape: &mut Tape) -> Tensor {
        self.resnet.forward(x, self.shift(time), tape)
    }

    pub(crate) fn backward(&self, gradient: &Tensor, tape: &mut Tape) -> Tensor {
        self.resnet.backward(gradient, tape)
    }

    /// The projection is the same for all pixels, so it is a bias.
    fn shift(&self, time: &Time) -> Shift {
        match time {
            Time::Same(table, row) => Shift::Same(table.0[self.index].select(0, *row)),
            Time::Each(rows) => Shift::Each(rows[self.index].shallow_clone()),
        }
    }
}

/// Halves a level by a convolution of stride 2.
pub(crate) struct Downsample {
    conv: Conv2d,
    pad: bool,
}

impl Downsample {
    pub(crate) fn load(scope: &Scope, channels: i64, padding: i64) -> Self {
        let conv = Conv2d::load_with(&scope.at("downsamplers.0.conv"), channels, channels, 3, 2, padding);
        Self { conv, pad: padding == 0 }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        if self.pad { self.conv.forward(&x.constant_pad_nd([0, 1, 0, 1])) } else { self.conv.forward(x) }
    }

    /// The gradient of its input, of the size `size`.
    pub(crate) fn backward(&self, gradient: &Tensor, size: &[i64]) -> Tensor {
        if !self.pad {
            return self.conv.backward(gradient, size);
        }
        let padded = self.conv.backward(gradient, &[size[0], size[1], size[2] + 1, size[3] + 1]);
        padded.narrow(2, 0, size[2]).narrow(3, 0, size[3])
    }
}
