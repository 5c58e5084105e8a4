//! `ResnetBlock2D`, a block of the UNet and of the VAE.

use tch::Tensor;

use crate::load::weights::Scope;
use crate::nn::layers::{Conv2d, GroupNorm};
use crate::nn::strips::Strips;
use crate::nn::tape::Tape;

/// Two convolutions beside a shortcut.
pub(crate) struct Resnet {
    norm1: GroupNorm,
    pub(crate) conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

/// The maps of a resnet between its convolutions, in strips.
pub(crate) struct Half {
    hidden: Strips,
    shortcut: Strips,
}

impl Half {
    /// Numbers of both.
    pub(crate) fn numbers(&self) -> i64 {
        self.hidden.numbers() + self.shortcut.numbers()
    }
}

/// What is added after the first convolution.
pub(crate) enum Shift {
    /// Its own bias.
    Bias,
    /// One bias for all samples, instead of its own: `[channels]`.
    Same(Tensor),
    /// A bias for each window, instead of its own: `[windows, channels]`. The samples are one or more times the
    /// windows.
    Each(Tensor),
}

impl Resnet {
    pub(crate) fn load(scope: &Scope, inputs: i64, outputs: i64, groups: i64, eps: f64) -> Self {
        Self::load_scaled(scope, inputs, outputs, groups, eps, 1.0)
    }

    /// [`Self::load`] for an input that is multiplied by `scale`, a power of two, and an output that shall be. A norm
    /// gives the same for a multiple of its input, if its epsilon is as much larger as the variance; so the map between
    /// the convolutions is multiplied, too. [`Shift::Bias`] only.
    pub(crate) fn load_scaled(scope: &Scope, inputs: i64, outputs: i64, groups: i64, eps: f64, scale: f64) -> Self {
        let eps = eps * scale * scale;
        let shortcut = || Conv2d::load_with(&scope.at("conv_shortcut"), inputs, outputs, 1, 1, 0);
        Self {
            norm1: GroupNorm::load(&scope.at("norm1"), inputs, groups, eps),
            conv1: Conv2d::load(&scope.at("conv1"), inputs, outputs).scaled(scale),
            norm2: GroupNorm::load(&scope.at("norm2"), outputs, groups, eps),
            conv2: Conv2d::load(&scope.at("conv2"), outputs, outputs).scaled(scale),
            conv_shortcut: (inputs != outputs).then(|| shortcut().with_scaled_bias(scale)),
        }
    }

    /// `[n, inputs, h, w]` to `[n, outputs, h, w]`.
    pub(crate) fn forward(&self, x: &Tensor, shift: Shift, tape: &mut Tape) -> Tensor {
        let hidden = self.norm1.forward_silu(x);
        let hidden = match shift {
            Shift::Bias => self.conv1.forward(&hidden),
            Shift::Same(bias) => self.conv1.forward_with_bias(&hidden, Some(&bias)),
            Shift::Each(rows) => {
                let copies = hidden.size()[0] / rows.size()[0];
                self.conv1.forward_with_bias(&hidden, None) + rows.repeat([copies, 1]).unsqueeze(-1).unsqueeze(-1)
            }
        };
        tape.push(x);
        tape.push(&hidden);
        let hidden = self.conv2.forward(&self.norm2.forward_silu(&hidden));
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x) + hidden,
            None => hidden + x,
        }
    }

    /// [`Self::forward`] of a map in strips, with [`Shift::Bias`].
    pub(crate) fn forward_strips(&self, x: Strips) -> Strips {
        self.second_half(self.first_half(x))
    }

    /// The first convolution of [`Self::forward_strips`].
    pub(crate) fn first_half(&self, x: Strips) -> Half {
        let norm = x.norm(&self.norm1);
        let (hidden, shortcut): (Vec<Tensor>, Vec<Tensor>) = x
            .into_strips()
            .map(|strip| {
                let hidden = strip.convolve(&self.conv1, |x| norm.forward_silu(x));
                (
                    hidden,
                    self.conv_shortcut.as_ref().map_or(strip.rows.shallow_clone(), |conv| conv.forward(&strip.rows)),
                )
            })
            .unzip();
        Half { hidden: Strips::from_iter(hidden), shortcut: Strips::from_iter(shortcut) }
    }

    /// The second convolution, and the sum with the shortcut.
    pub(crate) fn second_half(&self, half: Half) -> Strips {
        let Half { hidden, shortcut } = half;
        let norm = hidden.norm(&self.norm2);
        let hidden = hidden.into_strips().map(|strip| strip.convolve(&self.conv2, |x| norm.forward_silu(x)));
        std::iter::zip(hidden, shortcut.into_rows()).map(|(hidden, x)| hidden + x).collect()
    }

    /// The gradient of the input, from that of the output.
    pub(crate) fn backward(&self, gradient: &Tensor, tape: &mut Tape) -> Tensor {
        let hidden = tape.pop();
        let x = tape.pop();
        let g = self.norm2.backward_silu(&hidden, &self.conv2.backward(gradient, &hidden.size()));
        drop(hidden);
        let g = self.norm1.backward_silu(&x, &self.conv1.backward(&g, &x.size()));
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.backward(gradient, &x.size()) + g,
            None => g + gradient,
        }
    }
}
