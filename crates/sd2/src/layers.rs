//! The layers that the networks are made of. Each loads itself from a [`Scope`] by the names of PyTorch's module.

use tch::{Kind, Tensor};

use crate::{kept, weights::Scope};

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

    /// A linear layer whose file may hold a 1x1 convolution, which is the same thing on channels-last data.
    pub(crate) fn or_conv(scope: &Scope, inputs: i64, outputs: i64) -> Self {
        Self::load_from(scope, inputs, outputs, true, true)
    }

    fn load_from(scope: &Scope, inputs: i64, outputs: i64, bias: bool, or_conv: bool) -> Self {
        let (flat, conv) = ([outputs, inputs], [outputs, inputs, 1, 1]);
        let shapes: &[&[i64]] = if or_conv { &[&flat, &conv] } else { &[&flat] };
        let weight = scope.tensor_of("weight", shapes);
        Self { weight, bias: bias.then(|| scope.tensor("bias", &[outputs])) }
    }

    /// One layer that computes the outputs of several on the same input, side by side.
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
        Self {
            weight: scope.tensor("weight", &[outputs, inputs, kernel, kernel]),
            bias: scope.tensor("bias", &[outputs]),
            stride,
            padding,
        }
    }

    /// `[n, inputs, h, w]` to `[n, outputs, h, w]`, with h and w divided by the stride.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_with_bias(x, Some(&self.bias))
    }

    /// The gradient of its input, of the size `[n, inputs, h, w]`, from that of its output.
    pub(crate) fn backward(&self, gradient: &Tensor, size: &[i64]) -> Tensor {
        if self.stride == 1 {
            // The same convolution, turned round; it runs as fast as the forward one.
            let kernel = self.weight.size()[2];
            let turned = self.weight.flip([2, 3]).transpose(0, 1).contiguous();
            return gradient.conv2d(&turned, None::<&Tensor>, [1], [kernel - 1 - self.padding], [1], 1);
        }
        let zeros = Tensor::zeros(size, (gradient.kind(), gradient.device()));
        kept::gradient(&zeros, gradient, |x| self.forward_with_bias(x, None))
    }

    /// The same with another bias, or none.
    pub(crate) fn forward_with_bias(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        x.conv2d(&self.weight, bias, [self.stride], [self.padding], [1], 1)
    }
}

/// `torch.nn.GroupNorm`. Statistics are in fp32 whatever the dtype.
pub(crate) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    pub(crate) fn load(scope: &Scope, channels: i64, groups: i64, eps: f64) -> Self {
        Self { weight: scope.tensor("weight", &[channels]), bias: scope.tensor("bias", &[channels]), groups, eps }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps, true)
    }

    /// Followed by SiLU, as nearly everywhere.
    pub(crate) fn forward_silu(&self, x: &Tensor) -> Tensor {
        silu(self.forward(x))
    }

    /// The gradient of the input of [`Self::forward_silu`], from the input itself and the gradient of the output.
    pub(crate) fn backward_silu(&self, x: &Tensor, gradient: &Tensor) -> Tensor {
        let leaf = x.detach().set_requires_grad(true);
        let normed = tch::with_grad(|| self.forward(&leaf));
        let gradient = normed.detach().silu_backward(gradient);
        kept::pull(&normed, &leaf, &gradient)
    }
}

/// SiLU of a tensor nobody else reads: in place where no gradient will be asked for.
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
    let (n, heads, l, d) = x.size4().expect("attention gives [n, heads, l, d]");
    x.transpose(1, 2).reshape([n, l, heads * d])
}

/// Scaled dot-product attention on `[n, heads, l, d]`.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, causal, None, false)
}
