//! Sums of kernels and of tiles, and sums of what the two multiply to.
//!
//! Along an axis outputs are the coefficients of a product of polynomials, found by their values at six points: 0, ±5/8,
//! ±3/2 and infinity. With the usual 0, ±1, ±2 the rounding errors are twice as large.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::cmp;
use std::iter;

use pulp::{Simd, WithSimd};

use super::multiply::panel;
use super::{IN, Map, OUT, Place, SUMS, Tiles};

/// The points are 0, ±A, ±B, and infinity.
const A: f32 = 0.625;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;

/// Taps `[3, 3, inputs, outputs]` to their sums, in the order in which [`super::multiply`] reads them: `[36, panels, inputs,
/// panel]`, the outputs in panels of which the last may be narrower.
pub(super) struct Kernels<'a> {
    pub(super) taps: &'a [f32],
    pub(super) outputs: usize,
    pub(super) kernels: &'a mut [f32],
}

impl WithSimd for Kernels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (taps, _) = S::as_simd_f32s(self.taps);
        let (kernels, _) = S::as_mut_simd_f32s(self.kernels);
        let each = taps.len() / 9;
        let width = self.outputs / S::F32_LANES;
        let inputs = each / width;
        for input in 0..inputs {
            for block in 0..width {
                let first = block / panel::<S>() * panel::<S>();
                let place = first * inputs + input * cmp::min(panel::<S>(), width - first) + (block - first);
                let mut columns = [[simd.splat_f32s(0.0); IN]; 3];
                for (j, sums) in columns.iter_mut().enumerate() {
                    let mut column = [simd.splat_f32s(0.0); 3];
                    for (i, value) in column.iter_mut().enumerate() {
                        *value = taps[(3 * i + j) * each + input * width + block];
                    }
                    *sums = kernel_sums(simd, column);
                }
                for i in 0..IN {
                    let row = kernel_sums(simd, row(&columns, i));
                    for j in 0..IN {
                        kernels[(i * IN + j) * each + place] = row[j];
                    }
                }
            }
        }
    }
}

/// Maps to the sums of their tiles, `[36, room, channels]`.
pub(super) struct Scatter<'a> {
    pub(super) tiles: Tiles,
    pub(super) x: &'a [f32],
    pub(super) sums: &'a mut [f32],
}

impl WithSimd for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiles { map, first, count, room } = self.tiles;
        let Map { h, w } = map;
        let (x, _) = S::as_simd_f32s(self.x);
        let (sums, _) = S::as_mut_simd_f32s(self.sums);
        let width = sums.len() / (SUMS * room);
        for tile in 0..count {
            let Place { sample, top, left } = map.place(first + tile);
            for block in 0..width {
                let mut columns = [[simd.splat_f32s(0.0); IN]; IN];
                for (j, sums) in columns.iter_mut().enumerate() {
                    let mut column = [simd.splat_f32s(0.0); IN];
                    for (i, value) in column.iter_mut().enumerate() {
                        // A row and a column of zeros are before the first, and more after the last.
                        let (row, column) = ((top + i).wrapping_sub(1), (left + j).wrapping_sub(1));
                        if row < h && column < w {
                            *value = x[((sample * h + row) * w + column) * width + block];
                        }
                    }
                    *sums = input_sums(simd, column);
                }
                for i in 0..IN {
                    let row = input_sums(simd, row(&columns, i));
                    for j in 0..IN {
                        sums[((i * IN + j) * room + tile) * width + block] = row[j];
                    }
                }
            }
        }
    }
}

/// Products of tiles, `[36, room, channels]`, to maps.
pub(super) struct Gather<'a> {
    pub(super) tiles: Tiles,
    pub(super) products: &'a [f32],
    pub(super) bias: &'a [f32],
    /// The first row of outputs in `y`, among those of all maps.
    pub(super) top: usize,
    pub(super) y: &'a mut [f32],
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiles { map, first, count, room } = self.tiles;
        let Map { h, w } = map;
        let (products, _) = S::as_simd_f32s(self.products);
        let (bias, _) = S::as_simd_f32s(self.bias);
        let (y, _) = S::as_mut_simd_f32s(self.y);
        let width = bias.len();
        for tile in 0..count {
            let Place { sample, top, left } = map.place(first + tile);
            for (block, bias) in bias.iter().enumerate() {
                let mut columns = [[simd.splat_f32s(0.0); OUT]; IN];
                for (j, sums) in columns.iter_mut().enumerate() {
                    let mut column = [simd.splat_f32s(0.0); IN];
                    for (i, value) in column.iter_mut().enumerate() {
                        *value = products[((i * IN + j) * room + tile) * width + block];
                    }
                    *sums = output_sums(simd, column);
                }
                for i in 0..cmp::min(OUT, h - top) {
                    let row = output_sums(simd, row(&columns, i));
                    for j in 0..cmp::min(OUT, w - left) {
                        y[((sample * h + top + i - self.top) * w + left + j) * width + block] =
                            simd.add_f32s(row[j], *bias);
                    }
                }
            }
        }
    }
}

/// One of the rows of a few columns.
#[inline(always)]
fn row<T: Copy, const ROWS: usize, const COLUMNS: usize>(columns: &[[T; ROWS]; COLUMNS], i: usize) -> [T; COLUMNS] {
    let mut row = [columns[0][i]; COLUMNS];
    for (value, column) in iter::zip(&mut row, columns) {
        *value = column[i];
    }
    row
}

/// Three taps as a polynomial: its values, each over the product of the differences of its point to the others.
#[inline(always)]
fn kernel_sums<S: Simd>(simd: S, [x0, x1, x2]: [S::f32s; 3]) -> [S::f32s; IN] {
    let (by_a, by_b) = (1.0 / (2.0 * A2 * (A2 - B2)), 1.0 / (2.0 * B2 * (B2 - A2)));
    let [a, minus_a] = both(simd, A, add(simd, x0, A2, x2), x1);
    let [b, minus_b] = both(simd, B, add(simd, x0, B2, x2), x1);
    [
        times(simd, 1.0 / (A2 * B2), x0),
        times(simd, by_a, a),
        times(simd, by_a, minus_a),
        times(simd, by_b, b),
        times(simd, by_b, minus_b),
        x2,
    ]
}

/// Six inputs, each sum by the coefficients of `x (x^2 - A^2) (x^2 - B^2)` over its own point's factor.
#[inline(always)]
fn input_sums<S: Simd>(simd: S, [x0, x1, x2, x3, x4, x5]: [S::f32s; IN]) -> [S::f32s; IN] {
    let zero = add(simd, add(simd, x4, -(A2 + B2), x2), A2 * B2, x0);
    let [a, minus_a] = both(simd, A, add(simd, x4, -B2, x2), add(simd, x3, -B2, x1));
    let [b, minus_b] = both(simd, B, add(simd, x4, -A2, x2), add(simd, x3, -A2, x1));
    let infinity = add(simd, add(simd, x5, -(A2 + B2), x3), A2 * B2, x1);
    [zero, a, minus_a, b, minus_b, infinity]
}

/// Four outputs: by the powers of the points, from the 0th to the third.
#[inline(always)]
fn output_sums<S: Simd>(simd: S, [zero, a, minus_a, b, minus_b, infinity]: [S::f32s; IN]) -> [S::f32s; OUT] {
    let (even_a, odd_a) = (simd.add_f32s(a, minus_a), simd.sub_f32s(a, minus_a));
    let (even_b, odd_b) = (simd.add_f32s(b, minus_b), simd.sub_f32s(b, minus_b));
    [
        simd.add_f32s(zero, simd.add_f32s(even_a, even_b)),
        add(simd, times(simd, A, odd_a), B, odd_b),
        add(simd, times(simd, A2, even_a), B2, even_b),
        add(simd, add(simd, infinity, A * A2, odd_a), B * B2, odd_b),
    ]
}

/// A polynomial at a point and at its negative, from the sum of its even powers and that of its odd ones over the point.
#[inline(always)]
fn both<S: Simd>(simd: S, point: f32, even: S::f32s, odd: S::f32s) -> [S::f32s; 2] {
    [add(simd, even, point, odd), add(simd, even, -point, odd)]
}

/// `factor * x`.
#[inline(always)]
fn times<S: Simd>(simd: S, factor: f32, x: S::f32s) -> S::f32s {
    simd.mul_f32s(simd.splat_f32s(factor), x)
}

/// `sum + factor * x`.
#[inline(always)]
fn add<S: Simd>(simd: S, sum: S::f32s, factor: f32, x: S::f32s) -> S::f32s {
    simd.mul_add_f32s(simd.splat_f32s(factor), x, sum)
}
