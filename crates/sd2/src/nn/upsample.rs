//! Upsampling to twice the height and width by nearest neighbours, and the convolution after it, as one layer.
//!
//! After such an upsampling each output of a 3x3 convolution depends on only two by two different inputs, so the
//! weights of equal inputs are summed beforehand. What remains is a transposed convolution of stride 2 with a 4x4
//! kernel: 4/9 of the multiplications, no map of four times the size, and its backward is a convolution of stride 2.

use tch::{Kind, Tensor};

use crate::layout::{channels_last, is_channels_last};
use crate::load::weights::Scope;
use crate::nn::layers::Conv2d;

/// An upsampling and the convolution after it.
pub(crate) struct UpConv2d {
    /// `[inputs, outputs, 4, 4]`.
    weight: Tensor,
    bias: Tensor,
}

impl UpConv2d {
    /// From the weights of the 3x3 convolution.
    pub(crate) fn load(scope: &Scope, inputs: i64, outputs: i64) -> Self {
        let Conv2d { weight, bias, .. } = Conv2d::load(scope, inputs, outputs);
        Self::new(&weight, bias)
    }

    fn new(weight: &Tensor, bias: Tensor) -> Self {
        // Summed in fp32. The kernel of a transposed convolution is flipped.
        let sums = double(&double(&weight.to_kind(Kind::Float), 2), 3);
        let sums = sums.flip([2, 3]).transpose(0, 1).to_kind(weight.kind());
        Self { weight: ordered_as(weight, &sums), bias }
    }

    /// `[n, inputs, h, w]` to `[n, outputs, 2h, 2w]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.conv_transpose2d(&self.weight, Some(&self.bias), [2], [1], [0], 1, [1])
    }

    /// [`Self::forward`] of some rows of a map, without the outputs of the first `top` and the last `bottom` ones.
    pub(crate) fn forward_rows(&self, x: &Tensor, [top, bottom]: [i64; 2]) -> Tensor {
        let y = self.forward(x);
        y.narrow(2, 2 * top, y.size()[2] - 2 * (top + bottom))
    }

    /// [`Self::forward`] to height and width `size`, each twice that of the input or one less.
    pub(crate) fn forward_to(&self, x: &Tensor, size: [i64; 2]) -> Tensor {
        if size == twice([x.size()[2], x.size()[3]]) {
            return self.forward(x);
        }
        x.upsample_nearest2d(size, None, None).conv2d(&self.single(), Some(&self.bias), [1], [1], [1], 1)
    }

    /// The gradient of the input, of height and width `size`, from that of the output.
    pub(crate) fn backward(&self, gradient: &Tensor, size: [i64; 2]) -> Tensor {
        let (n, _, h, w) = gradient.size4().expect("feature maps are [n, channels, h, w]");
        if [h, w] == twice(size) {
            return gradient.conv2d(&self.weight, None::<&Tensor>, [2], [1], [1], 1);
        }
        let g = gradient.conv_transpose2d(&self.single(), None::<&Tensor>, [1], [1], [0], 1, [1]);
        Tensor::upsample_nearest2d_backward(&g, [h, w], [n, g.size()[1], size[0], size[1]], None, None)
    }

    /// The weights of the 3x3 convolution, `[outputs, inputs, 3, 3]`, for odd sizes, which end between two equal
    /// inputs.
    fn single(&self) -> Tensor {
        ordered_as(&self.weight, &single(&single(&self.weight.transpose(0, 1).flip([2, 3]), 2), 3))
    }
}

/// Along an axis of a kernel, from weights a, b, c to a, a + b, b + c, c. An input becomes two outputs: the first is a
/// times the input before plus (b + c) times this one, the second (a + b) times this one plus c times the next.
fn double(weight: &Tensor, axis: i64) -> Tensor {
    let sums = weight.narrow(axis, 0, 2) + weight.narrow(axis, 1, 2);
    Tensor::cat(&[weight.narrow(axis, 0, 1), sums, weight.narrow(axis, 2, 1)], axis)
}

/// Undoes [`double`].
fn single(weight: &Tensor, axis: i64) -> Tensor {
    let (first, last) = (weight.narrow(axis, 0, 1), weight.narrow(axis, 3, 1));
    Tensor::cat(&[&first, &(weight.narrow(axis, 1, 1) - &first), &last], axis)
}

/// A copy of a kernel in the memory order of another one.
fn ordered_as(other: &Tensor, kernel: &Tensor) -> Tensor {
    if is_channels_last(other) { channels_last(kernel) } else { kernel.contiguous() }
}

fn twice(size: [i64; 2]) -> [i64; 2] {
    size.map(|side| 2 * side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tape::vjp;
    use crate::testing::{random, relative_error};

    #[test]
    fn matches_an_upsampling_and_a_convolution() {
        let (weight, bias) = (random(&[5, 3, 3, 3]), random(&[5]));
        for pixels_first in [false, true] {
            let ordered = |x: Tensor| if pixels_first { channels_last(&x) } else { x };
            let layer = UpConv2d::new(&ordered(weight.shallow_clone()), bias.shallow_clone());
            assert_eq!(is_channels_last(&layer.weight), pixels_first);
            for size in [[8, 6], [7, 6], [8, 5], [7, 5]] {
                let x = ordered(random(&[2, 3, 4, 3]));
                let leaf = x.detach().set_requires_grad(true);
                let expected = leaf.upsample_nearest2d(size, None, None).conv2d(&weight, Some(&bias), [1], [1], [1], 1);
                let gradient = random(&expected.size());
                for (found, expected) in [
                    (layer.forward_to(&x, size), expected.detach()),
                    (layer.backward(&gradient, [4, 3]), vjp(&expected, &leaf, &gradient)),
                ] {
                    let error = relative_error(&found, &expected);
                    assert!(error < 1e-6, "{size:?}: {error}");
                }
            }
        }
    }
}
