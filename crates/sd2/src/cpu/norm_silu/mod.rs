//! `GroupNorm` followed by SiLU, forward and backward, on channels-last maps in a CPU's memory.
//!
//! Nearly every convolution has the two before it, and with AMX they take longer than it does. libtorch passes over the
//! map four times, and its backward is slow in this order where groups are narrow (45 ms for 16 channels of 512x512,
//! for which a convolution takes 2 ms). These kernels pass over it twice forward and three times backward, in fp32; the
//! compiler vectorises them for the processor that it runs on.

mod rows;

use std::iter;

use pulp::Arch;
use tch::{Kind, Tensor};

use self::rows::{Affine, BackwardRows, BackwardSums, Coefficients, ForwardRows, ForwardSums, tiled};
use crate::cpu::memory::{filled_map, sample_len, samples};
use crate::cpu::numbers::{ForDtype, Number, for_dtype};
use crate::cpu::threads::{for_each, parts, parts_mut};

/// The two layers as one.
pub(super) struct NormSilu {
    weight: Vec<f32>,
    bias: Vec<f32>,
    groups: usize,
    eps: f64,
}

/// The statistics of a group.
#[derive(Clone, Copy)]
struct Moments {
    mean: f64,
    /// `1 / sqrt(variance + eps)`
    inverse_deviation: f64,
}

impl NormSilu {
    /// With the weights of a norm, `[channels]` each.
    pub(super) fn new(weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Self {
        let [weight, bias] = [weight, bias].map(|values| {
            Vec::try_from(values.to_kind(Kind::Float).contiguous()).expect("one number for each channel, in memory")
        });
        Self { weight, bias, groups, eps }
    }

    /// `[n, channels, h, w]` to the same.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        for_dtype(x.kind(), Forward { norm: self, x })
    }

    /// The gradient of the input `x`, from that of the output. Both have one dtype.
    pub(super) fn backward(&self, x: &Tensor, gradient: &Tensor) -> Tensor {
        for_dtype(x.kind(), Backward { norm: self, x, gradient })
    }

    fn channels(&self) -> usize {
        self.weight.len()
    }

    /// Channels of a group.
    fn width(&self) -> usize {
        self.channels() / self.groups
    }

    /// The moments of the groups of one sample.
    fn moments<T: Number>(&self, x: &[T]) -> Vec<Moments> {
        let channels = self.channels();
        // Of differences to the first pixel: sums of squares far from 0 leave little of a variance.
        let pivot: Vec<f32> = x[..channels].iter().map(|x| x.widen()).collect();
        let pivots = tiled(&pivot);
        let sums = total(parts(x, channels), |x| Arch::new().dispatch(ForwardSums { x, pivots: &pivots, channels }));
        let pixels = (x.len() / channels) as f64;
        (0..self.groups)
            .map(|group| {
                let of_group = || group * self.width()..(group + 1) * self.width();
                let mean_of = |c: usize| f64::from(pivot[c]) + sums[0][c] / pixels;
                let mean = of_group().map(mean_of).sum::<f64>() / self.width() as f64;
                // The variance within channels and that of their means.
                let variance = of_group()
                    .map(|c| (sums[1][c] - sums[0][c] * sums[0][c] / pixels) / pixels + (mean_of(c) - mean).powi(2))
                    .sum::<f64>()
                    / self.width() as f64;
                Moments { mean, inverse_deviation: 1.0 / (variance.max(0.0) + self.eps).sqrt() }
            })
            .collect()
    }

    /// The whole norm.
    fn affine(&self, moments: &[Moments]) -> Affine {
        let of_channel = |channel: usize| {
            let Moments { mean, inverse_deviation } = moments[channel / self.width()];
            let scale = f64::from(self.weight[channel]) * inverse_deviation;
            (scale as f32, (f64::from(self.bias[channel]) - mean * scale) as f32)
        };
        let (scale, shift) = (0..self.channels()).map(of_channel).unzip();
        Affine { scale, shift }
    }

    /// The norm without weight and bias.
    fn normalising(&self, moments: &[Moments]) -> Affine {
        let by_channel = |value: fn(&Moments) -> f64| -> Vec<f32> {
            moments.iter().flat_map(|moments| iter::repeat_n(value(moments) as f32, self.width())).collect()
        };
        Affine { scale: by_channel(|m| m.inverse_deviation), shift: by_channel(|m| -m.mean * m.inverse_deviation) }
    }

    /// From the two sums of each channel, see [`BackwardSums`], over groups of `count` numbers.
    fn coefficients(&self, moments: &[Moments], sums: &[Vec<f64>; 2], count: usize) -> Coefficients {
        let [mut of_grad_norm, mut of_x, mut constant] = [(); 3].map(|()| Vec::with_capacity(self.channels()));
        for (group, Moments { mean, inverse_deviation }) in moments.iter().enumerate() {
            let of_group = group * self.width()..(group + 1) * self.width();
            let [mean_grad, mean_product] = [0, 1].map(|i: usize| {
                let weighted = of_group.clone().map(|c| f64::from(self.weight[c]) * sums[i][c]);
                weighted.sum::<f64>() / count as f64
            });
            let slope = -inverse_deviation * inverse_deviation * mean_product;
            for c in of_group {
                of_grad_norm.push((inverse_deviation * f64::from(self.weight[c])) as f32);
                of_x.push(slope as f32);
                constant.push((-inverse_deviation * mean_grad - slope * mean) as f32);
            }
        }
        Coefficients { of_grad_norm, of_x, constant }
    }
}

struct Forward<'a> {
    norm: &'a NormSilu,
    x: &'a Tensor,
}

impl ForDtype for Forward<'_> {
    fn run<T: Number>(self) -> Tensor {
        let channels = self.norm.channels();
        let size = map_size(self.x);
        filled_map(size, |y: &mut [T]| {
            for (x, y) in iter::zip(samples::<T>(self.x), y.chunks_mut(sample_len(&size))) {
                let affine = self.norm.affine(&self.norm.moments(x)).tiled();
                for_each(iter::zip(parts(x, channels), parts_mut(y, channels)), |(x, y)| {
                    Arch::new().dispatch(ForwardRows { affine: &affine, x, y });
                });
            }
        })
    }
}

/// With `grad_norm` the gradient of the norm's output, `normalised` the normalised input and `mean(..)` the mean of a
/// group, the gradient of the input is
///
/// `(weight grad_norm - mean(weight grad_norm) - normalised mean(weight grad_norm normalised)) / deviation`
struct Backward<'a> {
    norm: &'a NormSilu,
    x: &'a Tensor,
    gradient: &'a Tensor,
}

impl ForDtype for Backward<'_> {
    fn run<T: Number>(self) -> Tensor {
        let (norm, channels) = (self.norm, self.norm.channels());
        let size = map_size(self.x);
        filled_map(size, |grad_x: &mut [T]| {
            let maps = iter::zip(samples::<T>(self.x), samples::<T>(self.gradient));
            for ((x, gradient), grad_x) in iter::zip(maps, grad_x.chunks_mut(sample_len(&size))) {
                let moments = norm.moments(x);
                let affine = norm.affine(&moments).tiled();
                let normalising = norm.normalising(&moments).tiled();
                let both = || iter::zip(parts(x, channels), parts(gradient, channels));
                let sums = total(both(), |(x, gradient)| {
                    let (affine, normalising) = (&affine, &normalising);
                    Arch::new().dispatch(BackwardSums { affine, normalising, x, gradient, channels })
                });
                let coefficients = norm.coefficients(&moments, &sums, x.len() / norm.groups).tiled();
                for_each(iter::zip(both(), parts_mut(grad_x, channels)), |((x, gradient), grad_x)| {
                    let (affine, coefficients) = (&affine, &coefficients);
                    Arch::new().dispatch(BackwardRows { affine, coefficients, x, gradient, grad_x });
                });
            }
        })
    }
}

fn map_size(map: &Tensor) -> [i64; 4] {
    let (n, channels, h, w) = map.size4().expect("feature maps are [n, channels, h, w]");
    [n, channels, h, w]
}

/// Works on each part in a thread of its own and adds up the results.
fn total<P: Send>(parts: impl Iterator<Item = P>, work: impl Fn(P) -> [Vec<f64>; 2] + Sync) -> [Vec<f64>; 2] {
    let add = |mut sums: [Vec<f64>; 2], more: [Vec<f64>; 2]| {
        iter::zip(sums.iter_mut().flatten(), more.iter().flatten()).for_each(|(sum, more)| *sum += more);
        sums
    };
    for_each(parts, work).into_iter().reduce(add).expect("a map has pixels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::channels_last;
    use crate::testing::{random, relative_error};

    /// Against libtorch in fp32, relative to the norm of the expected map.
    #[test]
    fn forward_and_backward_match_libtorch() {
        // Rows of several pixels and of one, parts of a row, and maps for several threads.
        for (shape, groups) in
            [([2, 12, 5, 7], 6), ([3, 16, 2, 2], 4), ([1, 48, 33, 9], 16), ([1, 640, 8, 8], 32), ([2, 16, 160, 128], 4)]
        {
            let (weight, bias) = (random(&shape[1..2]), random(&shape[1..2]));
            // Far from 0, as real maps are, where sums of squares lose digits.
            let (x, gradient) = (random(&shape) + 10.0, random(&shape));
            for (kind, tolerance) in [(Kind::Float, 2e-5), (Kind::BFloat16, 4e-3), (Kind::Half, 5e-4)] {
                let [x, gradient] = [&x, &gradient].map(|map| channels_last(map).to_kind(kind));
                let leaf = x.to_kind(Kind::Float).contiguous().set_requires_grad(true);
                let y = leaf.group_norm(groups, Some(&weight), Some(&bias), 1e-5, true).silu();
                let product = (&y * gradient.to_kind(Kind::Float)).sum(Kind::Float);
                let grad_x = Tensor::run_backward(&[product], &[&leaf], false, false).swap_remove(0);
                let layer = NormSilu::new(&weight, &bias, groups as usize, 1e-5);
                for threads in [1, 3] {
                    tch::set_num_threads(threads);
                    for (found, expected) in [(layer.forward(&x), &y), (layer.backward(&x, &gradient), &grad_x)] {
                        let error = relative_error(&found, expected);
                        assert!(error < tolerance, "{shape:?} {kind:?} {threads}: {error}");
                    }
                }
            }
        }
    }
}
