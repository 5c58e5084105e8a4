//! Twice the height and width by nearest neighbours and a convolution of that, as one layer.
//!
//! Each output of a 3x3 convolution of such a map sees only two by two different inputs, so the weights of equal inputs
//! are summed beforehand. What is left is a transposed convolution of stride 2 whose kernel is 4x4: 4/9 of the products,
//! no map of four times the size, and its way back is a convolution of stride 2.

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
    /// From the weights of the convolution, 3x3.
    pub(crate) fn load(scope: &Scope, inputs: i64, outputs: i64) -> Self {
        let Conv2d { weight, bias, .. } = Conv2d::load(scope, inputs, outputs);
        Self::new(&weight, bias)
    }

    fn new(weight: &Tensor, bias: Tensor) -> Self {
        // Summed in fp32. Transposed kernels are turned.
        let sums = double(&double(&weight.to_kind(Kind::Float), 2), 3);
        let sums = sums.flip([2, 3]).transpose(0, 1).to_kind(weight.kind());
        Self { weight: ordered_as(weight, &sums), bias }
    }

    /// `[n, inputs, h, w]` to `[n, outputs, 2h, 2w]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.conv_transpose2d(&self.weight, Some(&self.bias), [2], [1], [0], 1, [1])
    }

    /// [`Self::forward`] of some rows of a map, of which so many at the top and at the bottom are only seen.
    pub(crate) fn forward_rows(&self, x: &Tensor, [top, bottom]: [i64; 2]) -> Tensor {
        let y = self.forward(x);
        y.narrow(2, 2 * top, y.size()[2] - 2 * (top + bottom))
    }

    /// [`Self::forward`] to height and width `size`, which may be odd: one less than twice.
    pub(crate) fn forward_to(&self, x: &Tensor, size: [i64; 2]) -> Tensor {
        if size == twice([x.size()[2], x.size()[3]]) {
            return self.forward(x);
        }
        x.upsample_nearest2d(size, None, None).conv2d(&self.single(), Some(&self.bias), [1], [1], [1], 1)
    }

    /// The gradient of its input, of height and width `size`, from that of its output.
    pub(crate) fn backward(&self, gradient: &Tensor, size: [i64; 2]) -> Tensor {
        let (n, _, h, w) = gradient.size4().expect("feature maps are [n, channels, h, w]");
        if [h, w] == twice(size) {
            return gradient.conv2d(&self.weight, None::<&Tensor>, [2], [1], [1], 1);
        }
        let g = gradient.conv_transpose2d(&self.single(), None::<&Tensor>, [1], [1], [0], 1, [1]);
        Tensor::upsample_nearest2d_backward(&g, [h, w], [n, g.size()[1], size[0], size[1]], None, None)
    }

    /// The weights of the 3x3 convolution, `[outputs, inputs, 3, 3]`: odd maps end between two equal inputs.
    fn single(&self) -> Tensor {
        ordered_as(&self.weight, &single(&single(&self.weight.transpose(0, 1).flip([2, 3]), 2), 3))
    }
}

/// Along an axis of a kernel: from weights a, b, c to a, a + b, b + c, c. Of the outputs over one input the first sees
/// the input before it by a and its own by b and c, the second its own by a and b and the next by c.
fn double(weight: &Tensor, axis: i64) -> Tensor {
    let sums = weight.narrow(axis, 0, 2) + weight.narrow(axis, 1, 2);
    Tensor::cat(&[weight.narrow(axis, 0, 1), sums, weight.narrow(axis, 2, 1)], axis)
}

/// Undoes [`double`].
fn single(weight: &Tensor, axis: i64) -> Tensor {
    let (first, last) = (weight.narrow(axis, 0, 1), weight.narrow(axis, 3, 1));
    Tensor::cat(&[&first, &(weight.narrow(axis, 1, 1) - &first), &last], axis)
}

/// A copy of a kernel in the order that another one has.
fn ordered_as(other: &Tensor, kernel: &Tensor) -> Tensor {
    if is_channels_last(other) { channels_last(kernel) } else { kernel.contiguous() }
}

fn twice(size: [i64; 2]) -> [i64; 2] {
    size.map(|side| 2 * side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tape;
    use crate::testing::{random, relative_error};

    #[test]
    fn upsampled_and_convolved_as_one() {
        let (weight, bias) = (random(&[5, 3, 3, 3]), random(&[5]));
        for by_pixels in [false, true] {
            let ordered = |x: Tensor| if by_pixels { channels_last(&x) } else { x };
            let layer = UpConv2d::new(&ordered(weight.shallow_clone()), bias.shallow_clone());
            assert_eq!(is_channels_last(&layer.weight), by_pixels);
            for size in [[8, 6], [7, 6], [8, 5], [7, 5]] {
                let x = ordered(random(&[2, 3, 4, 3]));
                let leaf = x.detach().set_requires_grad(true);
                let expected = leaf.upsample_nearest2d(size, None, None).conv2d(&weight, Some(&bias), [1], [1], [1], 1);
                let gradient = random(&expected.size());
                for (found, expected) in [
                    (layer.forward_to(&x, size), expected.detach()),
                    (layer.backward(&gradient, [4, 3]), tape::pull(&expected, &leaf, &gradient)),
                ] {
                    let error = relative_error(&found, &expected);
                    assert!(error < 1e-6, "{size:?}: {error}");
                }
            }
        }
    }
}
