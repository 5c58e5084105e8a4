//! `GroupNorm` followed by SiLU, and back, on channels-last maps in a CPU's memory.
//!
//! Nearly every convolution has the two before it, and with AMX they take longer than it does. libtorch goes over the
//! map four times, and its way back is slow in this order where groups are narrow (45 ms for 16 channels of 512x512, in
//! which a convolution takes 2). Here it is twice there and three times back; all that is computed is fp32, and the
//! compiler makes vector instructions of it, those of the processor it finds itself on.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::iter;

use pulp::{Arch, NullaryFnOnce};
use tch::{Kind, Tensor};

use crate::cpu::numbers::{Job, Number, by_kind, for_each, parts, parts_mut, samples, samples_mut};

/// Pixels are taken together until there are so many numbers, for maps of few channels.
const ROW: usize = 512;

/// Rows whose sums are added in fp32; sums of those are fp64.
const ROWS_IN_F32: usize = 64;

/// The two layers as one.
pub(crate) struct NormSilu {
    weight: Vec<f32>,
    bias: Vec<f32>,
    groups: usize,
    eps: f64,
}

/// What a norm does to one sample, by channel: `x * scale + shift`.
struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// Mean and reciprocal of the deviation of a group.
#[derive(Clone, Copy)]
struct Moments {
    mean: f64,
    inverse: f64,
}

impl NormSilu {
    /// Of the weights of a norm, `[channels]` each.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Self {
        let [weight, bias] = [weight, bias].map(|values| {
            Vec::try_from(values.to_kind(Kind::Float).contiguous()).expect("one number for each channel, in memory")
        });
        Self { weight, bias, groups, eps }
    }

    /// `[n, channels, h, w]` to the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let mut y = x.empty_like();
        by_kind(x.kind(), Forward { norm: self, x, y: &mut y });
        y
    }

    /// The gradient of the input `x`, from that of the output. Both are of one dtype.
    pub(crate) fn backward(&self, x: &Tensor, gradient: &Tensor) -> Tensor {
        let mut of_input = x.empty_like();
        by_kind(x.kind(), Backward { norm: self, x, gradient, of_input: &mut of_input });
        of_input
    }

    fn width(&self) -> usize {
        self.weight.len() / self.groups
    }

    /// The moments of the groups of one sample.
    fn moments<T: Number>(&self, x: &[T]) -> Vec<Moments> {
        let channels = self.weight.len();
        // Of differences to the first pixel: sums of squares far from 0 leave little of a variance.
        let pivot: Vec<f32> = x[..channels].iter().map(|x| x.wide()).collect();
        let rows = tiled(&pivot);
        let sums = total(parts(x, channels), |x| Arch::new().dispatch(SumUp { x, pivot: &rows, channels }));
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
                Moments { mean, inverse: 1.0 / (variance.max(0.0) + self.eps).sqrt() }
            })
            .collect()
    }

    fn affine(&self, moments: &[Moments]) -> Affine {
        let of_channel = |channel: usize| {
            let Moments { mean, inverse } = moments[channel / self.width()];
            let scale = f64::from(self.weight[channel]) * inverse;
            (scale as f32, (f64::from(self.bias[channel]) - mean * scale) as f32)
        };
        let (scale, shift) = (0..self.weight.len()).map(of_channel).unzip();
        Affine { scale, shift }
    }
}

struct Forward<'a> {
    norm: &'a NormSilu,
    x: &'a Tensor,
    y: &'a mut Tensor,
}

impl Job for Forward<'_> {
    fn run<T: Number>(self) {
        let channels = self.norm.weight.len();
        for (x, y) in iter::zip(samples::<T>(self.x), samples_mut::<T>(self.y)) {
            let affine = self.norm.affine(&self.norm.moments(x)).tiled();
            for_each(iter::zip(parts(x, channels), parts_mut(y, channels)), |(x, y)| {
                Arch::new().dispatch(Apply { affine: &affine, x, y });
            });
        }
    }
}

struct Backward<'a> {
    norm: &'a NormSilu,
    x: &'a Tensor,
    gradient: &'a Tensor,
    of_input: &'a mut Tensor,
}

impl Job for Backward<'_> {
    /// With p = the gradient of the norm's output, y = its normalised input, m(..) = the mean of a group, the gradient of
    /// its input is `(weight p - m(weight p) - y m(weight p y)) / deviation`.
    fn run<T: Number>(self) {
        let (norm, channels) = (self.norm, self.norm.weight.len());
        let maps = iter::zip(samples::<T>(self.x), samples::<T>(self.gradient));
        for ((x, gradient), of_input) in iter::zip(maps, samples_mut::<T>(self.of_input)) {
            let moments = norm.moments(x);
            let affine = norm.affine(&moments).tiled();
            let normal = normal(norm, &moments).tiled();
            let both = || iter::zip(parts(x, channels), parts(gradient, channels));
            let sums = total(both(), |(x, gradient)| {
                Arch::new().dispatch(SumUpBack { affine: &affine, normal: &normal, x, gradient, channels })
            });
            let back = back(norm, &moments, &sums, x.len() / norm.groups).map(|values| tiled(&values));
            for_each(iter::zip(both(), parts_mut(of_input, channels)), |((x, gradient), of_input)| {
                Arch::new().dispatch(ApplyBack { affine: &affine, back: &back, x, gradient, of_input });
            });
        }
    }
}

/// The affine map that only normalises.
fn normal(norm: &NormSilu, moments: &[Moments]) -> Affine {
    let each = |value: fn(&Moments) -> f64| -> Vec<f32> {
        moments.iter().flat_map(|moments| iter::repeat_n(value(moments) as f32, norm.width())).collect()
    };
    Affine { scale: each(|m| m.inverse), shift: each(|m| -m.mean * m.inverse) }
}

/// By channel: what the gradient of the output, the input, and 1 are multiplied with to give the gradient of the input.
fn back(norm: &NormSilu, moments: &[Moments], sums: &[Vec<f64>; 2], count: usize) -> [Vec<f32>; 3] {
    let channels = norm.weight.len();
    let mut back = [(); 3].map(|()| Vec::with_capacity(channels));
    for (group, Moments { mean, inverse }) in moments.iter().enumerate() {
        let of_group = group * norm.width()..(group + 1) * norm.width();
        let [m_p, m_py] = [0, 1].map(|i: usize| {
            let weighed = of_group.clone().map(|c| f64::from(norm.weight[c]) * sums[i][c]);
            weighed.sum::<f64>() / count as f64
        });
        let of_x = -inverse * inverse * m_py;
        for c in of_group {
            back[0].push((inverse * f64::from(norm.weight[c])) as f32);
            back[1].push(of_x as f32);
            back[2].push((-inverse * m_p - of_x * mean) as f32);
        }
    }
    back
}

// What follows is the innermost: each goes over rows, and over the numbers of a row side by side. They are types and not
// closures because only so all of it becomes instructions of the processor's kind.

/// Sums and sums of squares of each channel, of differences to a pivot.
struct SumUp<'a, T> {
    x: &'a [T],
    pivot: &'a [f32],
    channels: usize,
}

impl<T: Number> NullaryFnOnce for SumUp<'_, T> {
    type Output = [Vec<f64>; 2];

    #[inline(always)]
    fn call(self) -> Self::Output {
        let row = self.pivot.len();
        let mut sums = Sums::new(self.channels);
        for rows in self.x.chunks(row * ROWS_IN_F32) {
            for x in rows.chunks(row) {
                let [a, b] = &mut sums.rows;
                for ((a, b), (x, pivot)) in iter::zip(iter::zip(a, b), iter::zip(x, self.pivot)) {
                    let difference = x.wide() - pivot;
                    *a += difference;
                    *b += difference * difference;
                }
            }
            sums.fold();
        }
        sums.channels
    }
}

/// Norm and SiLU.
struct Apply<'a, T> {
    affine: &'a Affine,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Number> NullaryFnOnce for Apply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let row = self.affine.scale.len();
        for (x, y) in iter::zip(self.x.chunks(row), self.y.chunks_mut(row)) {
            let affine = iter::zip(&self.affine.scale, &self.affine.shift);
            for ((x, y), (scale, shift)) in iter::zip(iter::zip(x, y), affine) {
                let normed = x.wide() * scale + shift;
                *y = T::narrow(normed * sigmoid(normed));
            }
        }
    }
}

/// Sums of p and of p y of each channel; see [`Backward`].
struct SumUpBack<'a, T> {
    affine: &'a Affine,
    normal: &'a Affine,
    x: &'a [T],
    gradient: &'a [T],
    channels: usize,
}

impl<T: Number> NullaryFnOnce for SumUpBack<'_, T> {
    type Output = [Vec<f64>; 2];

    #[inline(always)]
    fn call(self) -> Self::Output {
        let row = self.affine.scale.len();
        let mut sums = Sums::new(self.channels);
        let rows = iter::zip(self.x.chunks(row * ROWS_IN_F32), self.gradient.chunks(row * ROWS_IN_F32));
        for (x, gradient) in rows {
            for (x, gradient) in iter::zip(x.chunks(row), gradient.chunks(row)) {
                let affine = iter::zip(&self.affine.scale, &self.affine.shift);
                let normal = iter::zip(&self.normal.scale, &self.normal.shift);
                let [a, b] = &mut sums.rows;
                let values = iter::zip(iter::zip(x, gradient), iter::zip(affine, normal));
                for (((x, gradient), ((scale, shift), (inverse, centre))), (a, b)) in iter::zip(values, iter::zip(a, b))
                {
                    let x = x.wide();
                    let p = gradient.wide() * silu_slope(x * scale + shift);
                    *a += p;
                    *b += p * (x * inverse + centre);
                }
            }
            sums.fold();
        }
        sums.channels
    }
}

/// The gradient of the input.
struct ApplyBack<'a, T> {
    affine: &'a Affine,
    back: &'a [Vec<f32>; 3],
    x: &'a [T],
    gradient: &'a [T],
    of_input: &'a mut [T],
}

impl<T: Number> NullaryFnOnce for ApplyBack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let row = self.affine.scale.len();
        let rows = iter::zip(self.x.chunks(row), self.gradient.chunks(row));
        for ((x, gradient), of_input) in iter::zip(rows, self.of_input.chunks_mut(row)) {
            let affine = iter::zip(&self.affine.scale, &self.affine.shift);
            let back = iter::zip(iter::zip(&self.back[0], &self.back[1]), &self.back[2]);
            let values = iter::zip(iter::zip(x, gradient), iter::zip(affine, back));
            for (((x, gradient), ((scale, shift), ((of_p, of_x), constant))), of_input) in iter::zip(values, of_input) {
                let x = x.wide();
                let p = gradient.wide() * silu_slope(x * scale + shift);
                *of_input = T::narrow(p * of_p + x * of_x + constant);
            }
        }
    }
}

/// The derivative of `x * sigmoid(x)`.
#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

/// `1 / (1 + e^-x)`, in operations that exist for vectors, to the last bit or two.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    /// Added to a number and subtracted again it leaves an integer, which is in the low bits of the sum.
    const TO_INTEGER: f32 = 12_582_912.0;
    let x = (-x).clamp(-87.0, 87.0);
    // e^x = 2^n e^r, with |r| at most half of ln 2.
    let sum = x * std::f32::consts::LOG2_E + TO_INTEGER;
    let n = sum - TO_INTEGER;
    // ln 2 in two parts, of which the first has few bits.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let powers = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0));
    let e = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * powers)));
    let two_to_n = f32::from_bits((sum.to_bits() << 23).wrapping_add(127 << 23));
    1.0 / (1.0 + e * two_to_n)
}

/// Two sums for each channel.
struct Sums {
    /// For each number of a row.
    rows: [Vec<f32>; 2],
    channels: [Vec<f64>; 2],
}

impl Sums {
    fn new(channels: usize) -> Self {
        Self { rows: [(); 2].map(|()| vec![0.0; row(channels)]), channels: [(); 2].map(|()| vec![0.0; channels]) }
    }

    /// Adds the sums of rows to those of channels, and begins anew.
    fn fold(&mut self) {
        for (rows, channels) in iter::zip(&mut self.rows, &mut self.channels) {
            for pixel in rows.chunks_mut(channels.len()) {
                for (sum, channel) in iter::zip(pixel, &mut *channels) {
                    *channel += f64::from(std::mem::take(sum));
                }
            }
        }
    }
}

impl Affine {
    fn tiled(&self) -> Self {
        Self { scale: tiled(&self.scale), shift: tiled(&self.shift) }
    }
}

/// Numbers in a row of maps of so many channels.
fn row(channels: usize) -> usize {
    channels * (ROW / channels).max(1)
}

/// Values of channels, as often as there are pixels in a row.
fn tiled(values: &[f32]) -> Vec<f32> {
    values.iter().copied().cycle().take(row(values.len())).collect()
}

/// Does the work of each part in a thread of its own, and adds what they give.
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
    use crate::nn::tape;
    use crate::testing::{random, relative_error};

    /// Against libtorch in fp32, relative to the length.
    #[test]
    fn there_and_back_as_libtorch_has_it() {
        // Rows of several pixels and of one, parts of a row, and maps for several threads.
        for (shape, groups) in
            [([2, 12, 5, 7], 6), ([3, 16, 2, 2], 4), ([1, 48, 33, 9], 16), ([1, 640, 8, 8], 32), ([2, 16, 160, 128], 4)]
        {
            let (weight, bias) = (random(&shape[1..2]), random(&shape[1..2]));
            // Far from 0, as maps are: what is left of sums of squares must do.
            let (x, gradient) = (random(&shape) + 10.0, random(&shape));
            for (kind, tolerance) in [(Kind::Float, 2e-5), (Kind::BFloat16, 4e-3), (Kind::Half, 5e-4)] {
                let [x, gradient] = [&x, &gradient].map(|map| channels_last(map).to_kind(kind));
                let leaf = x.to_kind(Kind::Float).contiguous().set_requires_grad(true);
                let y = leaf.group_norm(groups, Some(&weight), Some(&bias), 1e-5, true).silu();
                let of_input = tape::pull(&y, &leaf, &gradient);
                let layer = NormSilu::new(&weight, &bias, groups as usize, 1e-5);
                for threads in [1, 3] {
                    tch::set_num_threads(threads);
                    for (found, expected) in [(layer.forward(&x), &y), (layer.backward(&x, &gradient), &of_input)] {
                        let error = relative_error(&found, expected);
                        assert!(error < tolerance, "{shape:?} {kind:?} {threads}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn sigmoid_is_exact_to_rounding() {
        for x in (-2000..2000).map(|i| i as f32 * 0.05) {
            let expected = (1.0 / (1.0 + (-f64::from(x)).exp())) as f32;
            assert!((sigmoid(x) - expected).abs() <= 2e-7 * expected + 1e-37, "{x}: {} {expected}", sigmoid(x));
        }
        assert!((sigmoid(f32::INFINITY) - 1.0).abs() < 1e-6 && sigmoid(f32::NEG_INFINITY) < 1e-30);
    }
}
