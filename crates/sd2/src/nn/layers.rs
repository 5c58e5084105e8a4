//! The layers of all networks. Each loads its weights from a [`Scope`] under the names of PyTorch's module.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::cpu::{Direction, GroupNormSilu, try_winograd};
use crate::layout::{channels_last, is_channels_last};
use crate::load::weights::Scope;
use crate::nn::tape::vjp;

/// `torch.nn.Linear`.
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn load(scope: &Scope, inputs: i64, outputs: i64) -> Self {
        Self::load_from(scope, inputs, outputs, true, false)
    }

    pub(crate) fn without_bias(scope: &Scope, inputs: i64, outputs: i64) -> Self {
        Self::load_from(scope, inputs, outputs, false, false)
    }

    /// A linear layer whose weights may be stored as those of a 1x1 convolution, which is the same on channels-last
    /// data.
    pub(crate) fn or_conv(scope: &Scope, inputs: i64, outputs: i64) -> Self {
        Self::load_from(scope, inputs, outputs, true, true)
    }

    fn load_from(scope: &Scope, inputs: i64, outputs: i64, bias: bool, or_conv: bool) -> Self {
        let (flat, conv) = ([outputs, inputs], [outputs, inputs, 1, 1]);
        let shapes: &[&[i64]] = if or_conv { &[&flat, &conv] } else { &[&flat] };
        let weight = scope.tensor_of("weight", shapes);
        Self { weight, bias: bias.then(|| scope.tensor("bias", &[outputs])) }
    }

    /// A layer whose outputs are `factor` times as large.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        if factor == 1.0 {
            return self;
        }
        Self { weight: self.weight * factor, bias: self.bias.map(|bias| bias * factor) }
    }

    /// One layer that computes the outputs of several layers of the same input, side by side.
    pub(crate) fn fused(layers: &[Self]) -> Self {
        let weights: Vec<_> = layers.iter().map(|layer| &layer.weight).collect();
        let biases: Option<Vec<_>> = layers.iter().map(|layer| layer.bias.as_ref()).collect();
        Self { weight: Tensor::cat(&weights, 0), bias: biases.map(|biases| Tensor::cat(&biases, 0)) }
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }

    /// The same in fp32, whatever the dtype of the weights.
    pub(crate) fn forward_f32(&self, x: &Tensor) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(Kind::Float));
        x.to_kind(Kind::Float).linear(&self.weight.to_kind(Kind::Float), bias.as_ref())
    }
}

/// `torch.nn.Conv2d` with a square kernel.
pub(crate) struct Conv2d {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// 3x3, stride 1, padding 1.
    pub(crate) fn load(scope: &Scope, inputs: i64, outputs: i64) -> Self {
        Self::load_with(scope, inputs, outputs, 3, 1, 1)
    }

    pub(crate) fn load_with(scope: &Scope, inputs: i64, outputs: i64, kernel: i64, stride: i64, padding: i64) -> Self {
        let weight = scope.tensor("weight", &[outputs, inputs, kernel, kernel]);
        // Outputs have the memory order of the weights, and the layers after them keep it.
        let weight = if scope.channels_last() { channels_last(&weight) } else { weight };
        Self { weight, bias: scope.tensor("bias", &[outputs]), stride, padding }
    }

    /// A layer whose outputs are `factor` times as large.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        if factor == 1.0 { self } else { Self { weight: &self.weight * factor, ..self.with_scaled_bias(factor) } }
    }

    /// A layer whose outputs are `factor` times as large if its inputs are.
    pub(crate) fn with_scaled_bias(self, factor: f64) -> Self {
        if factor == 1.0 { self } else { Self { bias: &self.bias * factor, ..self } }
    }

    /// `[n, inputs, h, w]` to `[n, outputs, h, w]`, with h and w divided by the stride.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_with_bias(x, Some(&self.bias))
    }

    /// [`Self::forward`] of some rows of a map, with `edges` rows of zeros above and below. For stride 1.
    pub(crate) fn forward_rows(&self, x: &Tensor, edges: [i64; 2]) -> Tensor {
        if let Some(y) = self.try_winograd(x, Some(&self.bias), Direction::Forward) {
            let [top, bottom] = edges.map(|edge| 1 - edge);
            return y.narrow(2, top, y.size()[2] - top - bottom);
        }
        let x = if edges == [0, 0] { x.shallow_clone() } else { x.constant_pad_nd([0, 0, edges[0], edges[1]]) };
        x.conv2d(&self.weight, Some(&self.bias), [1], [0, self.padding], [1], 1)
    }

    /// The gradient of the input, from that of the output. `size` `[n, .., h, w]` gives height and width of the input.
    pub(crate) fn backward(&self, gradient: &Tensor, size: &[i64]) -> Tensor {
        if let Some(grad_input) = self.try_winograd(gradient, None, Direction::Backward) {
            return grad_input;
        }
        let kernel = self.weight.size()[2];
        // With a stride the last row and column may have no output.
        let beyond = [2, 3]
            .map(|axis: usize| size[axis] - ((gradient.size()[axis] - 1) * self.stride + kernel - 2 * self.padding));
        gradient.conv_transpose2d(&self.weight, None::<&Tensor>, [self.stride], [self.padding], beyond, 1, [1])
    }

    /// [`Self::forward`] with another bias, or none.
    pub(crate) fn forward_with_bias(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.try_winograd(x, bias, Direction::Forward)
            .unwrap_or_else(|| x.conv2d(&self.weight, bias, [self.stride], [self.padding], [1], 1))
    }

    fn try_winograd(&self, x: &Tensor, bias: Option<&Tensor>, direction: Direction) -> Option<Tensor> {
        if self.stride == 1 && self.padding == 1 { try_winograd(x, &self.weight, bias, direction) } else { None }
    }
}

/// Refuses a map and weights of a norm that have different dtypes. libtorch's kernels for CPUs take them, those for
/// CUDA fail, or read one as the other; so that this is noticed everywhere, it is refused everywhere.
///
/// # Panics
/// If they differ.
fn check_kinds(x: &Tensor, weight: &Tensor) {
    let (of_map, of_weight) = (x.kind(), weight.kind());
    assert!(
        of_map == of_weight,
        "a norm with weights in {of_weight:?} takes no map in {of_map:?}; convert one of them"
    );
}

/// Numbers of a feature map whose norm is differentiated at once by autograd: 64 MiB in fp32.
const MAX_DIFFERENTIATED: i64 = 1 << 24;

/// `torch.nn.GroupNorm`. Statistics are in fp32 whatever the dtype.
pub(crate) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
    /// The norm and the SiLU after it, on a CPU.
    kernel: GroupNormSilu,
}

impl GroupNorm {
    pub(crate) fn load(scope: &Scope, channels: i64, groups: i64, eps: f64) -> Self {
        Self::new(scope.tensor("weight", &[channels]), scope.tensor("bias", &[channels]), groups, eps)
    }

    fn new(weight: Tensor, bias: Tensor, groups: i64, eps: f64) -> Self {
        let kernel = GroupNormSilu::new(&weight, &bias, groups, eps);
        Self { weight, bias, groups, eps, kernel }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        check_kinds(x, &self.weight);
        x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps, true)
    }

    /// Mean and variance of each group of `x`, `[n, groups, 1]` in fp64.
    pub(crate) fn statistics(&self, x: &Tensor) -> (Tensor, Tensor) {
        let (n, channels, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
        // libtorch wants no gaps here. A copy has none, and the same memory order.
        let x = if is_channels_last(x) || x.is_contiguous() { x.shallow_clone() } else { x.copy() };
        // The statistics get the dtype of the map and the weights.
        let [x, weight, bias] = [&x, &self.weight, &self.bias].map(|values| values.to_kind(Kind::Float));
        check_kinds(&x, &weight);
        // Only for its by-products: libtorch's own variance takes eight times as long as a whole norm.
        let (_, mean, inverse) =
            x.native_group_norm(Some(weight), Some(bias), n, channels, h * w, self.groups, self.eps);
        let [mean, inverse] = [mean, inverse].map(|values| values.to_kind(Kind::Double).unsqueeze(-1));
        (mean, inverse.pow_tensor_scalar(-2) - self.eps)
    }

    /// The norm as `x * scale + shift`, both `[n, channels, 1, 1]` in fp32, from mean and variance `[n, groups, 1]`.
    pub(crate) fn affine(&self, mean: &Tensor, variance: &Tensor) -> (Tensor, Tensor) {
        let (n, channels) = (mean.size()[0], self.weight.size()[0]);
        let by_group = |values: &Tensor| values.to_kind(Kind::Double).view([1, self.groups, channels / self.groups]);
        let scale = by_group(&self.weight) * (variance + self.eps).rsqrt();
        let shift = by_group(&self.bias) - mean * &scale;
        let by_channel = |values: Tensor| values.to_kind(Kind::Float).view([n, channels, 1, 1]);
        (by_channel(scale), by_channel(shift))
    }

    /// [`Self::forward`] followed by SiLU, as nearly everywhere.
    pub(crate) fn forward_silu(&self, x: &Tensor) -> Tensor {
        check_kinds(x, &self.weight);
        self.kernel.try_forward(x).unwrap_or_else(|| silu(self.forward(x)))
    }

    /// The gradient of the input of [`Self::forward_silu`], from the input itself and the gradient of the output.
    pub(crate) fn backward_silu(&self, x: &Tensor, gradient: &Tensor) -> Tensor {
        check_kinds(x, &self.weight);
        check_kinds(gradient, &self.weight);
        let by_kernel = self.kernel.try_backward(x, gradient);
        by_kernel.unwrap_or_else(|| self.backward_silu_by_autograd(MAX_DIFFERENTIATED, x, gradient))
    }

    /// The same with at most `at_once` numbers at once, but at least one group.
    fn backward_silu_by_autograd(&self, at_once: i64, x: &Tensor, gradient: &Tensor) -> Tensor {
        let (channels, width) = (self.weight.size()[0], self.weight.size()[0] / self.groups);
        // Groups are independent, and for a large map as a whole autograd needs several times its memory.
        let share = self.groups * at_once / x.numel() as i64;
        if share >= self.groups {
            return self.backward_silu_of(0..channels, x, gradient);
        }
        let step = share.max(1) * width;
        let parts: Vec<_> = (0..channels)
            .step_by(step as usize)
            .map(|from| self.backward_silu_of(from..(from + step).min(channels), x, gradient))
            .collect();
        Tensor::cat(&parts, 1)
    }

    /// The same for some channels, which are whole groups.
    fn backward_silu_of(&self, channels: Range<i64>, x: &Tensor, gradient: &Tensor) -> Tensor {
        let (from, count) = (channels.start, channels.end - channels.start);
        let [weight, bias] = [&self.weight, &self.bias].map(|values| values.narrow(0, from, count));
        let groups = self.groups * count / self.weight.size()[0];
        let leaf = x.narrow(1, from, count).contiguous().detach().set_requires_grad(true);
        let normed = tch::with_grad(|| leaf.group_norm(groups, Some(&weight), Some(&bias), self.eps, true));
        let gradient = normed.detach().silu_backward(&gradient.narrow(1, from, count));
        vjp(&normed, &leaf, &gradient)
    }
}

/// SiLU of a tensor that nothing else reads: in place, unless autograd needs the input.
pub(crate) fn silu(mut x: Tensor) -> Tensor {
    if x.requires_grad() { x.silu() } else { x.silu_() }
}

/// `torch.nn.LayerNorm` over the last dimension. Statistics are in fp32 whatever the dtype.
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn load(scope: &Scope, width: i64, eps: f64) -> Self {
        Self { weight: scope.tensor("weight", &[width]), bias: scope.tensor("bias", &[width]), width, eps }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        check_kinds(x, &self.weight);
        x.layer_norm([self.width], Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

/// Splits `[n, l, heads * d]` into `[n, heads, l, d]`, without a copy.
pub(crate) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let (n, l, width) = x.size3().expect("queries, keys and values are [n, l, width]");
    x.view([n, l, heads, width / heads]).transpose(1, 2)
}

/// Undoes [`split_heads`].
pub(crate) fn merge_heads(x: &Tensor) -> Tensor {
    let (n, heads, l, d) = x.size4().expect("the output of attention is [n, heads, l, d]");
    x.transpose(1, 2).reshape([n, l, heads * d])
}

/// Scaled dot-product attention on `[n, heads, l, d]`.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, causal, None, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    /// Whatever the device: what only CUDA refuses would be found by nobody here.
    #[test]
    fn a_norm_refuses_mixed_dtypes() {
        let norm = GroupNorm::new(random(&[8]), random(&[8]), 4, 1e-5);
        let layer = LayerNorm { weight: random(&[8]), bias: random(&[8]), width: 8, eps: 1e-5 };
        let (x, narrow) = (random(&[1, 8, 3, 2]), random(&[1, 8, 3, 2]).to_kind(Kind::BFloat16));
        let refuses = |compute: &dyn Fn() -> Tensor| {
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compute)).expect_err("it is refused");
            failed.downcast_ref::<String>().is_some_and(|message| message.contains("BFloat16"))
        };
        assert!(refuses(&|| norm.forward(&narrow)));
        assert!(refuses(&|| norm.forward_silu(&narrow)));
        assert!(refuses(&|| norm.backward_silu(&narrow, &x)));
        assert!(refuses(&|| norm.backward_silu(&x, &narrow)));
        assert!(refuses(&|| layer.forward(&narrow.view([6, 8]))));
        assert_eq!(norm.forward(&x).kind(), Kind::Float);
    }

    /// A map in 16 bit has the statistics of its numbers, in both memory orders.
    #[test]
    fn statistics_are_those_of_the_numbers() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let [weight, bias] = [(); 2].map(|()| random(&[8]).to_kind(kind));
            let norm = GroupNorm::new(weight, bias, 4, 1e-5);
            let map = (random(&[2, 8, 5, 6]) * 3.0 + 1.0).to_kind(kind);
            for x in [map.shallow_clone(), channels_last(&map), map.narrow(2, 1, 3)] {
                let (mean, variance) = norm.statistics(&x);
                let groups = x.to_kind(Kind::Double).reshape([2, 4, -1]);
                let expected_mean = groups.mean_dim([2].as_slice(), true, None::<Kind>);
                let expected_variance =
                    (&groups - &expected_mean).square().mean_dim([2].as_slice(), true, None::<Kind>);
                for (found, expected) in [(mean, expected_mean), (variance, expected_variance)] {
                    let difference = (found - expected).abs().max().double_value(&[]);
                    assert!(difference < 1e-4, "{kind:?}: {difference}");
                }
            }
        }
    }

    #[test]
    fn a_norm_is_differentiated_in_parts() {
        let norm = GroupNorm::new(random(&[12]), random(&[12]), 6, 1e-5);
        let (x, gradient) = (random(&[2, 12, 5, 7]), random(&[2, 12, 5, 7]));
        let leaf = x.copy().set_requires_grad(true);
        let expected = vjp(&norm.forward(&leaf).silu(), &leaf, &gradient);
        // All at once, four groups and then two, one by one.
        for at_once in [840, 600, 1] {
            let found = norm.backward_silu_by_autograd(at_once, &x, &gradient);
            let difference = (found - &expected).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "{at_once}: {difference}");
        }
    }
}
