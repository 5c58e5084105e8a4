//! The 36 matrix products of transformed tiles and transformed kernels.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::cmp;

use pulp::{Simd, WithSimd};

use super::tiles::{ELEMENTS, Tiles};

/// Tiles that are multiplied at once, each by a [`panel`]: the totals stay in registers.
pub(super) const ROWS: usize = 6;

/// Vectors of outputs that are multiplied at once, so that the totals fit the 32 registers of AVX-512, or 16.
#[inline(always)]
pub(super) fn panel<S: Simd>() -> usize {
    if S::F32_LANES >= 16 { 4 } else { 2 }
}

/// `[36, capacity, inputs]` by transformed kernels to `[36, capacity, outputs]`. Tiles are multiplied in whole
/// [`ROWS`], so that some after the last are, too.
pub(super) struct Multiply<'a> {
    pub(super) at: Tiles,
    pub(super) inputs: usize,
    pub(super) tiles: &'a [f32],
    pub(super) kernels: &'a [f32],
    pub(super) products: &'a mut [f32],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiles { count, capacity, .. } = self.at;
        let inputs = self.inputs;
        let (kernels, _) = S::as_simd_f32s(self.kernels);
        let (products, _) = S::as_mut_simd_f32s(self.products);
        let width = kernels.len() / (ELEMENTS * inputs);
        for element in 0..ELEMENTS {
            let tiles = &self.tiles[element * capacity * inputs..][..capacity * inputs];
            let kernels = &kernels[element * width * inputs..][..width * inputs];
            let products = &mut products[element * capacity * width..][..capacity * width];
            for first in (0..width).step_by(panel::<S>()) {
                let columns = cmp::min(panel::<S>(), width - first);
                let kernels = &kernels[first * inputs..][..columns * inputs];
                for tile in (0..count).step_by(ROWS) {
                    let tiles = &tiles[tile * inputs..][..ROWS * inputs];
                    let products = &mut products[tile * width + first..];
                    match columns {
                        4 => multiply::<S, 4>(simd, tiles, kernels, products, width),
                        3 => multiply::<S, 3>(simd, tiles, kernels, products, width),
                        2 => multiply::<S, 2>(simd, tiles, kernels, products, width),
                        _ => multiply::<S, 1>(simd, tiles, kernels, products, width),
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
    tiles: &[f32],
    kernels: &[S::f32s],
    products: &mut [S::f32s],
    width: usize,
) {
    let inputs = kernels.len() / COLUMNS;
    let row = |row: usize| &tiles[row * inputs..][..inputs];
    let rows = [row(0), row(1), row(2), row(3), row(4), row(5)];
    let mut totals = [[simd.splat_f32s(0.0); COLUMNS]; ROWS];
    for input in 0..inputs {
        let kernels = &kernels[input * COLUMNS..][..COLUMNS];
        for row in 0..ROWS {
            let value = simd.splat_f32s(rows[row][input]);
            for column in 0..COLUMNS {
                totals[row][column] = simd.mul_add_f32s(value, kernels[column], totals[row][column]);
            }
        }
    }
    for row in 0..ROWS {
        products[row * width..][..COLUMNS].copy_from_slice(&totals[row]);
    }
}
