//! The inner loops: over rows, and over the numbers of a row side by side.
//!
//! They are types and not closures because only then all of a loop is compiled for the processor's instructions. The
//! nested zips are what vectorises: they leave no bounds to check.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::iter;
use std::mem;

use pulp::NullaryFnOnce;

use crate::cpu::numbers::Number;

/// Pixels are processed together up to this count of numbers, for maps of few channels.
const ROW: usize = 512;

/// Rows whose sums are added in fp32; the totals are fp64.
const ROWS_IN_F32: usize = 64;

/// What a norm does to one sample, by channel: `x * scale + shift`.
pub(super) struct Affine {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

/// The gradient of the input by channel: `grad_norm * of_grad_norm + x * of_x + constant`; see `Backward`.
pub(super) struct Coefficients {
    pub(super) of_grad_norm: Vec<f32>,
    pub(super) of_x: Vec<f32>,
    pub(super) constant: Vec<f32>,
}

/// Sums and sums of squares of each channel, of differences to a pivot.
pub(super) struct ForwardSums<'a, T> {
    pub(super) x: &'a [T],
    pub(super) pivots: &'a [f32],
    pub(super) channels: usize,
}

impl<T: Number> NullaryFnOnce for ForwardSums<'_, T> {
    type Output = [Vec<f64>; 2];

    #[inline(always)]
    fn call(self) -> Self::Output {
        let row = self.pivots.len();
        let mut sums = Sums::new(self.channels);
        for rows in self.x.chunks(row * ROWS_IN_F32) {
            for x in rows.chunks(row) {
                let [sum, sum_of_squares] = &mut sums.rows;
                let row_sums = iter::zip(sum, sum_of_squares);
                for ((sum, sum_of_squares), (x, pivot)) in iter::zip(row_sums, iter::zip(x, self.pivots)) {
                    let difference = x.widen() - pivot;
                    *sum += difference;
                    *sum_of_squares += difference * difference;
                }
            }
            sums.fold();
        }
        sums.channels
    }
}

/// Norm and SiLU.
pub(super) struct ForwardRows<'a, T> {
    pub(super) affine: &'a Affine,
    pub(super) x: &'a [T],
    pub(super) y: &'a mut [T],
}

impl<T: Number> NullaryFnOnce for ForwardRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let row = self.affine.scale.len();
        for (x, y) in iter::zip(self.x.chunks(row), self.y.chunks_mut(row)) {
            let affine = iter::zip(&self.affine.scale, &self.affine.shift);
            for ((x, y), (scale, shift)) in iter::zip(iter::zip(x, y), affine) {
                let normed = x.widen() * scale + shift;
                *y = T::narrow(normed * sigmoid(normed));
            }
        }
    }
}

/// Sums of `grad_norm` and of `grad_norm * normalised` of each channel; see `Backward`.
pub(super) struct BackwardSums<'a, T> {
    pub(super) affine: &'a Affine,
    pub(super) normalising: &'a Affine,
    pub(super) x: &'a [T],
    pub(super) gradient: &'a [T],
    pub(super) channels: usize,
}

impl<T: Number> NullaryFnOnce for BackwardSums<'_, T> {
    type Output = [Vec<f64>; 2];

    #[inline(always)]
    fn call(self) -> Self::Output {
        let row = self.affine.scale.len();
        let mut sums = Sums::new(self.channels);
        let rows = iter::zip(self.x.chunks(row * ROWS_IN_F32), self.gradient.chunks(row * ROWS_IN_F32));
        for (x, gradient) in rows {
            for (x, gradient) in iter::zip(x.chunks(row), gradient.chunks(row)) {
                let affine = iter::zip(&self.affine.scale, &self.affine.shift);
                let normalising = iter::zip(&self.normalising.scale, &self.normalising.shift);
                let [sum, sum_of_products] = &mut sums.rows;
                let values = iter::zip(iter::zip(x, gradient), iter::zip(affine, normalising));
                for ((numbers, affine), (sum, sum_of_products)) in iter::zip(values, iter::zip(sum, sum_of_products)) {
                    let ((x, gradient), ((scale, shift), (inverse_deviation, centre))) = (numbers, affine);
                    let x = x.widen();
                    let grad_norm = gradient.widen() * silu_slope(x * scale + shift);
                    *sum += grad_norm;
                    *sum_of_products += grad_norm * (x * inverse_deviation + centre);
                }
            }
            sums.fold();
        }
        sums.channels
    }
}

/// The gradient of the input.
pub(super) struct BackwardRows<'a, T> {
    pub(super) affine: &'a Affine,
    pub(super) coefficients: &'a Coefficients,
    pub(super) x: &'a [T],
    pub(super) gradient: &'a [T],
    pub(super) grad_x: &'a mut [T],
}

impl<T: Number> NullaryFnOnce for BackwardRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let row = self.affine.scale.len();
        let Coefficients { of_grad_norm, of_x, constant } = self.coefficients;
        let rows = iter::zip(self.x.chunks(row), self.gradient.chunks(row));
        for ((x, gradient), grad_x) in iter::zip(rows, self.grad_x.chunks_mut(row)) {
            let affine = iter::zip(&self.affine.scale, &self.affine.shift);
            let coefficients = iter::zip(iter::zip(of_grad_norm, of_x), constant);
            let values = iter::zip(iter::zip(x, gradient), iter::zip(affine, coefficients));
            for ((numbers, factors), grad_x) in iter::zip(values, grad_x) {
                let ((x, gradient), ((scale, shift), ((of_grad_norm, of_x), constant))) = (numbers, factors);
                let x = x.widen();
                let grad_norm = gradient.widen() * silu_slope(x * scale + shift);
                *grad_x = T::narrow(grad_norm * of_grad_norm + x * of_x + constant);
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

/// `1 / (1 + e^-x)`, in operations that exist for vectors, exact to the last bit or two.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    /// Adding and subtracting it rounds a number to an integer, which is in the low bits of the sum.
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
    /// Of the numbers at each place of a row, since the last [`Self::fold`].
    rows: [Vec<f32>; 2],
    channels: [Vec<f64>; 2],
}

impl Sums {
    fn new(channels: usize) -> Self {
        Self { rows: [(); 2].map(|()| vec![0.0; row_len(channels)]), channels: [(); 2].map(|()| vec![0.0; channels]) }
    }

    /// Moves the sums of rows to those of channels.
    fn fold(&mut self) {
        for (rows, channels) in iter::zip(&mut self.rows, &mut self.channels) {
            for pixel in rows.chunks_mut(channels.len()) {
                for (sum, channel) in iter::zip(pixel, &mut *channels) {
                    *channel += f64::from(mem::take(sum));
                }
            }
        }
    }
}

impl Affine {
    pub(super) fn tiled(&self) -> Self {
        Self { scale: tiled(&self.scale), shift: tiled(&self.shift) }
    }
}

impl Coefficients {
    pub(super) fn tiled(&self) -> Self {
        Self { of_grad_norm: tiled(&self.of_grad_norm), of_x: tiled(&self.of_x), constant: tiled(&self.constant) }
    }
}

/// Numbers in a row of a map: whole pixels.
fn row_len(channels: usize) -> usize {
    channels * (ROW / channels).max(1)
}

/// Values of channels, repeated for each pixel of a row.
pub(super) fn tiled(values: &[f32]) -> Vec<f32> {
    values.iter().copied().cycle().take(row_len(values.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_is_exact_to_rounding() {
        for x in (-2000..2000).map(|i| i as f32 * 0.05) {
            let expected = (1.0 / (1.0 + (-f64::from(x)).exp())) as f32;
            assert!((sigmoid(x) - expected).abs() <= 2e-7 * expected + 1e-37, "{x}: {} {expected}", sigmoid(x));
        }
        assert!((sigmoid(f32::INFINITY) - 1.0).abs() < 1e-6 && sigmoid(f32::NEG_INFINITY) < 1e-30);
    }
}
