//! `ResnetBlock2D` of the UNet, and the two samplers between its levels.

use tch::Tensor;

use super::time::Time;
use crate::{
    layers::{Conv2d, GroupNorm, Linear},
    weights::Scope,
};

/// Two convolutions round the time's projection.
pub(crate) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    /// Its place among the resnets of the UNet, and so in a [`super::TimeTable`].
    number: usize,
}

impl Resnet {
    pub(crate) fn load(scope: &Scope, inputs: i64, outputs: i64, net: &mut super::Common) -> Self {
        let number = net.resnets;
        net.resnets += 1;
        Self {
            norm1: GroupNorm::load(&scope.at("norm1"), inputs, net.norm_groups, net.norm_eps),
            conv1: Conv2d::load(&scope.at("conv1"), inputs, outputs),
            time_emb_proj: Linear::load(&scope.at("time_emb_proj"), net.time_width, outputs),
            norm2: GroupNorm::load(&scope.at("norm2"), outputs, net.norm_groups, net.norm_eps),
            conv2: Conv2d::load(&scope.at("conv2"), outputs, outputs),
            conv_shortcut: (inputs != outputs)
                .then(|| Conv2d::load_with(&scope.at("conv_shortcut"), inputs, outputs, 1, 1, 0)),
            number,
        }
    }

    /// This resnet's column of a time table: `[n, time width]` after SiLU to `[n, outputs]`.
    pub(crate) fn project_time(&self, embedding: &Tensor) -> Tensor {
        let bias = self.conv1.bias.to_kind(tch::Kind::Float);
        (self.time_emb_proj.forward_f32(embedding) + bias).to_kind(self.conv1.weight.kind())
    }

    /// `[n, inputs, h, w]` to `[n, outputs, h, w]`; `n` is a multiple of the windows that `time` has rows for.
    pub(crate) fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let hidden = self.norm1.forward_silu(x);
        let hidden = match time {
            // The projection is constant over the picture: it is a bias.
            Time::Same(table, row) => {
                self.conv1.forward_with_bias(&hidden, Some(&table.0[self.number].select(0, *row)))
            }
            Time::Each(rows) => {
                let rows = &rows[self.number];
                let copies = hidden.size()[0] / rows.size()[0];
                self.conv1.forward_with_bias(&hidden, None) + rows.repeat([copies, 1]).unsqueeze(-1).unsqueeze(-1)
            }
        };
        let hidden = self.conv2.forward(&self.norm2.forward_silu(&hidden));
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x) + hidden,
            None => hidden + x,
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
}

/// Grows a level to the size of the next finer one, by nearest neighbours and a convolution.
pub(crate) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(crate) fn load(scope: &Scope, channels: i64) -> Self {
        Self { conv: Conv2d::load(&scope.at("upsamplers.0.conv"), channels, channels) }
    }

    /// To height and width `size`.
    pub(crate) fn forward(&self, x: &Tensor, size: [i64; 2]) -> Tensor {
        self.conv.forward(&x.upsample_nearest2d(size, None, None))
    }
}
