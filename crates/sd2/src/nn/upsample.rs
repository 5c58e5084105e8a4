//! Upsampling to twice the height and width by nearest neighbours, and the convolution after it, as one layer.
//!
//! After such an upsampling each output of a 3x3 convolution depends on only two by two different inputs, so the
//! weights of equal inputs are summed beforehand. What remains is a transposed convolution of stride 2 with a 4x4
//! kernel: 4/9 of the multiplications, no map of four times the size, and its backward is a convolution of stride 2.
//! Or it is four convolutions with 2x2 kernels, one for each parity of rows and columns. [`Upsampling`] chooses.

use tch::{Kind, Tensor};

use crate::layout::{channels_last, is_channels_last};
use crate::load::weights::Scope;
use crate::nn::layers::Conv2d;
use crate::placement::Upsampling;

/// An upsampling and the convolution after it.
pub(crate) struct UpConv2d {
    kernel: Kernel,
    bias: Tensor,
}

enum Kernel {
    /// `[inputs, outputs, 4, 4]`.
    Transposed(Tensor),
    /// That of the 3x3 convolution, `[outputs, inputs, 3, 3]`.
    Nearest(Tensor),
    /// `[outputs, inputs, 2, 2]` each, in the order of [`PARITIES`].
    Four([Tensor; 4]),
}

/// Of the rows and columns of an output.
const PARITIES: [[i64; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

impl UpConv2d {
    /// From the weights of the 3x3 convolution.
    pub(crate) fn load(scope: &Scope, inputs: i64, outputs: i64) -> Self {
        let Conv2d { weight, bias, .. } = Conv2d::load(scope, inputs, outputs);
        Self::new(&weight, bias, scope.upsampling())
    }

    fn new(weight: &Tensor, bias: Tensor, upsampling: Upsampling) -> Self {
        // Summed in fp32.
        let sums = || double(&double(&weight.to_kind(Kind::Float), 2), 3).to_kind(weight.kind());
        let kernel = match upsampling {
            // The kernel of a transposed convolution is flipped.
            Upsampling::Transposed => Kernel::Transposed(ordered_as(weight, &sums().flip([2, 3]).transpose(0, 1))),
            Upsampling::Nearest => Kernel::Nearest(weight.shallow_clone()),
            Upsampling::Four => {
                let sums = sums();
                Kernel::Four(PARITIES.map(|parity| ordered_as(weight, &of_parity(&sums, parity))))
            }
        };
        Self { kernel, bias }
    }

    /// A layer whose outputs are `factor` times as large if its inputs are.
    pub(crate) fn with_scaled_bias(self, factor: f64) -> Self {
        if factor == 1.0 { self } else { Self { bias: self.bias * factor, ..self } }
    }

    /// `[n, inputs, h, w]` to `[n, outputs, 2h, 2w]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (_, _, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
        match &self.kernel {
            Kernel::Transposed(weight) => x.conv_transpose2d(weight, Some(&self.bias), [2], [1], [0], 1, [1]),
            Kernel::Nearest(weight) => self.nearest(weight, x, twice([h, w])),
            Kernel::Four(weights) => {
                let padded = x.constant_pad_nd([1, 1, 1, 1]);
                let parts: Vec<Tensor> = std::iter::zip(weights, PARITIES)
                    .map(|(weight, [row, column])| {
                        // An output at an even place sees the input before it, one at an odd place the input after it.
                        let x = padded.narrow(2, row, h + 1).narrow(3, column, w + 1);
                        x.conv2d(weight, Some(&self.bias), [1], [0], [1], 1)
                    })
                    .collect();
                interleave(&parts)
            }
        }
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
        self.nearest(&self.single(), x, size)
    }

    /// As it is written: the upsampling, and then the 3x3 convolution by `weight`.
    fn nearest(&self, weight: &Tensor, x: &Tensor, size: [i64; 2]) -> Tensor {
        x.upsample_nearest2d(size, None, None).conv2d(weight, Some(&self.bias), [1], [1], [1], 1)
    }

    /// The gradient of the input, of height and width `size`, from that of the output.
    pub(crate) fn backward(&self, gradient: &Tensor, size: [i64; 2]) -> Tensor {
        let (n, _, h, w) = gradient.size4().expect("feature maps are [n, channels, h, w]");
        match &self.kernel {
            Kernel::Transposed(weight) if [h, w] == twice(size) => {
                gradient.conv2d(weight, None::<&Tensor>, [2], [1], [1], 1)
            }
            Kernel::Four(weights) if [h, w] == twice(size) => {
                let parts = std::iter::zip(weights, PARITIES).map(|(weight, parity)| {
                    let g =
                        of_parity(gradient, parity).conv_transpose2d(weight, None::<&Tensor>, [1], [0], [0], 1, [1]);
                    let [row, column] = parity.map(|parity| 1 - parity);
                    g.narrow(2, row, size[0]).narrow(3, column, size[1])
                });
                parts.reduce(|sum, part| sum + part).expect("there are four")
            }
            _ => {
                let g = gradient.conv_transpose2d(&self.single(), None::<&Tensor>, [1], [1], [0], 1, [1]);
                Tensor::upsample_nearest2d_backward(&g, [h, w], [n, g.size()[1], size[0], size[1]], None, None)
            }
        }
    }

    /// The weights of the 3x3 convolution, `[outputs, inputs, 3, 3]`, for odd sizes, which end between two equal
    /// inputs.
    fn single(&self) -> Tensor {
        let from_sums = |like: &Tensor, sums: &Tensor| ordered_as(like, &single(&single(sums, 2), 3));
        match &self.kernel {
            Kernel::Transposed(weight) => from_sums(weight, &weight.transpose(0, 1).flip([2, 3])),
            Kernel::Nearest(weight) => weight.shallow_clone(),
            Kernel::Four(weights) => from_sums(&weights[0], &interleave(weights)),
        }
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

/// Every other row and column, from the given ones on: a view.
fn of_parity(map: &Tensor, [row, column]: [i64; 2]) -> Tensor {
    map.slice(2, row, None, 2).slice(3, column, None, 2)
}

/// Undoes [`of_parity`]: four maps `[n, channels, h, w]` to `[n, channels, 2h, 2w]`.
fn interleave(parts: &[Tensor]) -> Tensor {
    let (n, channels, h, w) = parts[0].size4().expect("feature maps are [n, channels, h, w]");
    if is_channels_last(&parts[0]) {
        let of_rows = |parts: &[Tensor]| {
            let pixels: Vec<Tensor> = parts.iter().map(|part| part.permute([0, 2, 3, 1])).collect();
            Tensor::stack(&pixels, 3)
        };
        let rows = Tensor::stack(&[of_rows(&parts[..2]), of_rows(&parts[2..])], 2);
        return rows.view([n, 2 * h, 2 * w, channels]).permute([0, 3, 1, 2]);
    }
    let rows = [Tensor::stack(&parts[..2], 4), Tensor::stack(&parts[2..], 4)];
    Tensor::stack(&rows, 3).view([n, channels, 2 * h, 2 * w])
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

    /// Every way to compute it, in both memory orders, forward and backward.
    #[test]
    fn matches_an_upsampling_and_a_convolution() {
        let (weight, bias) = (random(&[5, 3, 3, 3]), random(&[5]));
        let ways = [Upsampling::Transposed, Upsampling::Nearest, Upsampling::Four];
        for (way, pixels_first) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
            let ordered = |x: Tensor| if pixels_first { channels_last(&x) } else { x };
            let layer = UpConv2d::new(&ordered(weight.shallow_clone()), bias.shallow_clone(), way);
            let (Kernel::Transposed(kernel) | Kernel::Nearest(kernel) | Kernel::Four([kernel, ..])) = &layer.kernel;
            assert_eq!(is_channels_last(kernel), pixels_first);
            for size in [[8, 6], [7, 6], [8, 5], [7, 5]] {
                let x = ordered(random(&[2, 3, 4, 3]));
                assert_eq!(is_channels_last(&layer.forward(&x)), pixels_first);
                let leaf = x.detach().set_requires_grad(true);
                let expected = leaf.upsample_nearest2d(size, None, None).conv2d(&weight, Some(&bias), [1], [1], [1], 1);
                let gradient = random(&expected.size());
                for (found, expected) in [
                    (layer.forward_to(&x, size), expected.detach()),
                    (layer.backward(&gradient, [4, 3]), vjp(&expected, &leaf, &gradient)),
                ] {
                    let error = relative_error(&found, &expected);
                    assert!(error < 1e-6, "{way:?} {size:?}: {error}");
                }
            }
            // Some rows of a map, as its strips are upsampled.
            let x = ordered(random(&[1, 3, 5, 4]));
            let whole = layer.forward(&x);
            let rows = layer.forward_rows(&x.narrow(2, 1, 4), [1, 1]);
            let error = relative_error(&rows, &whole.narrow(2, 4, 4));
            assert!(error < 1e-6, "{way:?}: {error}");
        }
    }
}
