//! From kernels and maps to what is multiplied, and from the products to maps.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::cmp;

use pulp::{Simd, WithSimd};

use super::multiply::panel;
use super::polynomials::{Block, OfInputs, OfKernel, OfProducts, transform};
use super::tiles::{Corner, ELEMENTS, INPUTS, Map, TAPS, Tiles};

/// Taps `[3, 3, inputs, outputs]` to transformed kernels, in the order in which they are multiplied:
/// `[36, panels, inputs, panel]`, the outputs in panels of which the last may be narrower.
pub(super) struct TransformKernels<'a> {
    pub(super) taps: &'a [f32],
    pub(super) outputs: usize,
    pub(super) kernels: &'a mut [f32],
}

impl WithSimd for TransformKernels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (taps, _) = S::as_simd_f32s(self.taps);
        let (kernels, _) = S::as_mut_simd_f32s(self.kernels);
        let len = taps.len() / (TAPS * TAPS);
        let width = self.outputs / S::F32_LANES;
        let inputs = len / width;
        for input in 0..inputs {
            for block in 0..width {
                let first = block / panel::<S>() * panel::<S>();
                let to = first * inputs + input * cmp::min(panel::<S>(), width - first) + (block - first);
                transform(simd, OfKernel, KernelBlock::<S> { taps, kernels, len, from: input * width + block, to });
            }
        }
    }
}

struct KernelBlock<'a, S: Simd> {
    taps: &'a [S::f32s],
    kernels: &'a mut [S::f32s],
    /// Vectors of one tap of all kernels, and of one element.
    len: usize,
    from: usize,
    to: usize,
}

impl<S: Simd> Block<S> for KernelBlock<'_, S> {
    #[inline(always)]
    fn load(&self, row: usize, column: usize) -> S::f32s {
        self.taps[(row * TAPS + column) * self.len + self.from]
    }

    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, value: S::f32s) {
        self.kernels[(row * INPUTS + column) * self.len + self.to] = value;
    }
}

/// Maps to transformed tiles, `[36, capacity, channels]`.
pub(super) struct TransformInputs<'a> {
    pub(super) at: Tiles,
    pub(super) x: &'a [f32],
    pub(super) tiles: &'a mut [f32],
}

impl WithSimd for TransformInputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiles { map, first, count, capacity } = self.at;
        let (x, _) = S::as_simd_f32s(self.x);
        let (tiles, _) = S::as_mut_simd_f32s(self.tiles);
        let width = tiles.len() / (ELEMENTS * capacity);
        let zero = simd.splat_f32s(0.0);
        for tile in 0..count {
            let corner = map.corner(first + tile);
            for block in 0..width {
                let (len, to) = (capacity * width, tile * width + block);
                transform(simd, OfInputs, InputBlock::<S> { x, map, corner, width, block, zero, tiles, len, to });
            }
        }
    }
}

struct InputBlock<'a, S: Simd> {
    x: &'a [S::f32s],
    map: Map,
    corner: Corner,
    /// Vectors of a pixel.
    width: usize,
    block: usize,
    zero: S::f32s,
    tiles: &'a mut [S::f32s],
    /// Vectors of one element of all tiles.
    len: usize,
    to: usize,
}

impl<S: Simd> Block<S> for InputBlock<'_, S> {
    #[inline(always)]
    fn load(&self, row: usize, column: usize) -> S::f32s {
        let (Map { h, w }, Corner { sample, top, left }) = (self.map, self.corner);
        // A row and a column of zeros come before the first, and more after the last.
        let (row, column) = ((top + row).wrapping_sub(1), (left + column).wrapping_sub(1));
        if row < h && column < w {
            self.x[((sample * h + row) * w + column) * self.width + self.block]
        } else {
            self.zero
        }
    }

    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, value: S::f32s) {
        self.tiles[(row * INPUTS + column) * self.len + self.to] = value;
    }
}

/// Products of tiles, `[36, capacity, channels]`, to maps.
pub(super) struct TransformOutputs<'a> {
    pub(super) at: Tiles,
    pub(super) products: &'a [f32],
    pub(super) bias: &'a [f32],
    /// The first row of outputs in `y`, counted over all maps.
    pub(super) top: usize,
    pub(super) y: &'a mut [f32],
}

impl WithSimd for TransformOutputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiles { map, first, count, capacity } = self.at;
        let (products, _) = S::as_simd_f32s(self.products);
        let (bias, _) = S::as_simd_f32s(self.bias);
        let (y, _) = S::as_mut_simd_f32s(self.y);
        let width = bias.len();
        for tile in 0..count {
            let corner = map.corner(first + tile);
            let top = corner.sample * map.h + corner.top - self.top;
            for (block, &bias) in bias.iter().enumerate() {
                let (len, from) = (capacity * width, tile * width + block);
                let block = OutputBlock::<S> { simd, products, len, from, bias, map, corner, top, width, block, y };
                transform(simd, OfProducts, block);
            }
        }
    }
}

struct OutputBlock<'a, S: Simd> {
    simd: S,
    products: &'a [S::f32s],
    /// Vectors of one element of all tiles.
    len: usize,
    from: usize,
    bias: S::f32s,
    map: Map,
    corner: Corner,
    /// The tile's first row in `y`.
    top: usize,
    /// Vectors of a pixel.
    width: usize,
    block: usize,
    y: &'a mut [S::f32s],
}

impl<S: Simd> Block<S> for OutputBlock<'_, S> {
    #[inline(always)]
    fn load(&self, row: usize, column: usize) -> S::f32s {
        self.products[(row * INPUTS + column) * self.len + self.from]
    }

    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, value: S::f32s) {
        let (Map { h, w }, Corner { top, left, .. }) = (self.map, self.corner);
        if top + row < h && left + column < w {
            let pixel = (self.top + row) * w + left + column;
            self.y[pixel * self.width + self.block] = self.simd.add_f32s(value, self.bias);
        }
    }
}
