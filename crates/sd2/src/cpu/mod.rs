//! Kernels for feature maps in a CPU's memory, where libtorch's own are slow. The only door to them.
//!
//! | kernel | instead of | used for |
//! |---|---|---|
//! | [`GroupNormSilu`] | `group_norm` and `silu`, forward and backward | channels-last maps |
//! | [`try_winograd`] | a direct 3x3 convolution, forward and backward | large channels-last maps in fp32; see below |
//! | [`LpipsBackward`] | autograd through one stage of LPIPS | channels-last maps |
//!
//! Winograd's convolution also needs channels that are multiples of 16, enough tiles for all threads, and a processor
//! whose vector instructions `pulp` supports.
//!
//! Every function named `try_*` returns `None` in all other cases, on a GPU always. The caller then uses libtorch,
//! which computes the same up to rounding. Nothing else in this crate accesses the numbers of a tensor without
//! libtorch.

mod lpips;
mod memory;
mod norm_silu;
mod numbers;
mod threads;
mod winograd;

use tch::{Device, Tensor};

use self::lpips::LpipsKernel;
use self::norm_silu::NormSilu;
pub(crate) use self::winograd::Direction;
use crate::layout::{channels_last, is_channels_last};

/// `GroupNorm` followed by SiLU.
pub(crate) struct GroupNormSilu(Option<NormSilu>);

impl GroupNormSilu {
    /// With the weights of a norm, `[channels]` each.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor, groups: i64, eps: f64) -> Self {
        Self((weight.device() == Device::Cpu).then(|| NormSilu::new(weight, bias, groups as usize, eps)))
    }

    /// `[n, channels, h, w]` to the same.
    pub(crate) fn try_forward(&self, x: &Tensor) -> Option<Tensor> {
        let kernel = self.0.as_ref().filter(|_| is_channels_last(x) && !x.requires_grad())?;
        Some(kernel.forward(x))
    }

    /// The gradient of the input `x`, from that of the output.
    pub(crate) fn try_backward(&self, x: &Tensor, gradient: &Tensor) -> Option<Tensor> {
        let kernel = self.0.as_ref().filter(|_| is_channels_last(x))?;
        Some(kernel.backward(x, &in_channels_last(gradient)))
    }
}

/// A convolution of stride 1 and padding 1 by `weight` `[outputs, inputs, 3, 3]`: forward from `[n, inputs, h, w]` to
/// `[n, outputs, h, w]`, or backward from the gradient of the outputs to that of the inputs.
pub(crate) fn try_winograd(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, direction: Direction) -> Option<Tensor> {
    winograd::supports(x, weight).then(|| winograd::convolve(x, weight, bias, direction))
}

/// The backward pass of one stage of LPIPS.
pub(crate) struct LpipsBackward(Option<LpipsKernel>);

impl LpipsBackward {
    /// With the stage's weights of its channels, `[1, channels, 1, 1]` in fp32, and what is added to lengths.
    pub(crate) fn new(lin: &Tensor, epsilon: f32) -> Self {
        Self((lin.device() == Device::Cpu).then(|| LpipsKernel::new(lin, epsilon)))
    }

    /// The gradient of the input of the stage's last ReLU, whose output is `map` `[n, channels, h, w]`. `targets` are
    /// features `[n or 1, channels, h, w]` in fp32. `grad_pooled` is the gradient of the map's max pooling, if another
    /// stage follows. The distances are divided by `scale` `[n, 1, 1, 1]`.
    pub(crate) fn try_backward(
        &self,
        map: &Tensor,
        targets: &Tensor,
        grad_pooled: Option<&Tensor>,
        scale: Option<&Tensor>,
    ) -> Option<Tensor> {
        let kernel = self.0.as_ref().filter(|_| is_channels_last(map))?;
        Some(kernel.backward(map, &in_channels_last(targets), grad_pooled.map(in_channels_last).as_ref(), scale))
    }
}

fn in_channels_last(x: &Tensor) -> Tensor {
    if is_channels_last(x) { x.shallow_clone() } else { channels_last(x) }
}
