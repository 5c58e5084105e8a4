//! The 36 matrix products: sums of tiles by sums of kernels.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::cmp;

use pulp::{Simd, WithSimd};

use super::{SUMS, Tiles};

/// Tiles that are multiplied at once, each by a [`panel`]: what is summed up stays in registers.
pub(super) const ROWS: usize = 6;

/// Vectors of outputs that are multiplied at once, of the 32 registers that there are with AVX-512, or of 16.
#[inline(always)]
pub(super) fn panel<S: Simd>() -> usize {
    if S::F32_LANES >= 16 { 4 } else { 2 }
}

/// `[36, room, inputs]` by [`super::transforms::Kernels`] to `[36, room, outputs]`. Some tiles after the last are multiplied,
/// too.
pub(super) struct Multiply<'a> {
    pub(super) tiles: Tiles,
    pub(super) inputs: usize,
    pub(super) sums: &'a [f32],
    pub(super) kernels: &'a [f32],
    pub(super) products: &'a mut [f32],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiles { count, room, .. } = self.tiles;
        let inputs = self.inputs;
        let (kernels, _) = S::as_simd_f32s(self.kernels);
        let (products, _) = S::as_mut_simd_f32s(self.products);
        let width = kernels.len() / (SUMS * inputs);
        for product in 0..SUMS {
            let sums = &self.sums[product * room * inputs..][..room * inputs];
            let kernels = &kernels[product * width * inputs..][..width * inputs];
            let products = &mut products[product * room * width..][..room * width];
            for first in (0..width).step_by(panel::<S>()) {
                let columns = cmp::min(panel::<S>(), width - first);
                let kernels = &kernels[first * inputs..][..columns * inputs];
                for tile in (0..count).step_by(ROWS) {
                    let sums = &sums[tile * inputs..][..ROWS * inputs];
                    let products = &mut products[tile * width + first..];
                    match columns {
                        4 => multiply::<S, 4>(simd, sums, kernels, products, width),
                        3 => multiply::<S, 3>(simd, sums, kernels, products, width),
                        2 => multiply::<S, 2>(simd, sums, kernels, products, width),
                        _ => multiply::<S, 1>(simd, sums, kernels, products, width),
                    }
                }
            }
        }
    }
}

/// `[ROWS, inputs]` by a panel `[inputs, COLUMNS]` to columns of `[ROWS, width]`.
#[inline(always)]
fn multiply<S: Simd, const COLUMNS: usize>(
    simd: S,
    sums: &[f32],
    kernels: &[S::f32s],
    products: &mut [S::f32s],
    width: usize,
) {
    let inputs = kernels.len() / COLUMNS;
    let row = |row: usize| &sums[row * inputs..][..inputs];
    let rows = [row(0), row(1), row(2), row(3), row(4), row(5)];
    let mut totals = [[simd.splat_f32s(0.0); COLUMNS]; ROWS];
    for input in 0..inputs {
        let kernels = &kernels[input * COLUMNS..][..COLUMNS];
        for row in 0..ROWS {
            let sum = simd.splat_f32s(rows[row][input]);
            for column in 0..COLUMNS {
                totals[row][column] = simd.mul_add_f32s(sum, kernels[column], totals[row][column]);
            }
        }
    }
    for row in 0..ROWS {
        products[row * width..][..COLUMNS].copy_from_slice(&totals[row]);
    }
}
