//! The transforms along one axis, and along both.
//!
//! Along an axis the outputs are coefficients of a product of polynomials, found by its values at six points: 0, ±5/8,
//! ±3/2 and infinity. With the usual 0, ±1, ±2 the rounding errors are twice as large.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::iter;

use pulp::Simd;

use super::tiles::{INPUTS, OUTPUTS, TAPS};

/// The points are 0, ±A, ±B, and infinity.
const A: f32 = 0.625;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;

/// A linear map of vectors, along one axis.
pub(super) trait Transform<const FROM: usize, const TO: usize> {
    fn apply<S: Simd>(simd: S, values: [S::f32s; FROM]) -> [S::f32s; TO];
}

/// What is transformed along both axes: a vector of channels at each of some rows and columns.
pub(super) trait Block<S: Simd> {
    fn load(&self, row: usize, column: usize) -> S::f32s;
    fn store(&mut self, row: usize, column: usize, value: S::f32s);
}

/// Transforms the columns of a block, and then the rows of that.
#[inline(always)]
pub(super) fn transform<S: Simd, T: Transform<FROM, TO>, const FROM: usize, const TO: usize>(
    simd: S,
    _: T,
    mut block: impl Block<S>,
) {
    let mut columns = [[simd.splat_f32s(0.0); TO]; FROM];
    for (j, transformed) in columns.iter_mut().enumerate() {
        let mut column = [simd.splat_f32s(0.0); FROM];
        for (i, value) in column.iter_mut().enumerate() {
            *value = block.load(i, j);
        }
        *transformed = T::apply(simd, column);
    }
    for i in 0..TO {
        let mut row = [simd.splat_f32s(0.0); FROM];
        for (value, column) in iter::zip(&mut row, &columns) {
            *value = column[i];
        }
        for (j, value) in T::apply(simd, row).into_iter().enumerate() {
            block.store(i, j, value);
        }
    }
}

/// Three taps as a polynomial: its values, each over the product of the differences of its point to the others.
pub(super) struct OfKernel;

impl Transform<TAPS, INPUTS> for OfKernel {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, [x0, x1, x2]: [S::f32s; TAPS]) -> [S::f32s; INPUTS] {
        let (by_a, by_b) = (1.0 / (2.0 * A2 * (A2 - B2)), 1.0 / (2.0 * B2 * (B2 - A2)));
        let [a, minus_a] = at_plus_minus(simd, A, add_scaled(simd, x0, A2, x2), x1);
        let [b, minus_b] = at_plus_minus(simd, B, add_scaled(simd, x0, B2, x2), x1);
        [
            scaled(simd, 1.0 / (A2 * B2), x0),
            scaled(simd, by_a, a),
            scaled(simd, by_a, minus_a),
            scaled(simd, by_b, b),
            scaled(simd, by_b, minus_b),
            x2,
        ]
    }
}

/// Six inputs: at each point the coefficients of `x (x^2 - A^2) (x^2 - B^2)` over the point's own factor.
pub(super) struct OfInputs;

impl Transform<INPUTS, INPUTS> for OfInputs {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, [x0, x1, x2, x3, x4, x5]: [S::f32s; INPUTS]) -> [S::f32s; INPUTS] {
        let zero = add_scaled(simd, add_scaled(simd, x4, -(A2 + B2), x2), A2 * B2, x0);
        let [a, minus_a] = at_plus_minus(simd, A, add_scaled(simd, x4, -B2, x2), add_scaled(simd, x3, -B2, x1));
        let [b, minus_b] = at_plus_minus(simd, B, add_scaled(simd, x4, -A2, x2), add_scaled(simd, x3, -A2, x1));
        let infinity = add_scaled(simd, add_scaled(simd, x5, -(A2 + B2), x3), A2 * B2, x1);
        [zero, a, minus_a, b, minus_b, infinity]
    }
}

/// The inverse: values at the points to four outputs, by the powers of the points from the 0th to the third.
pub(super) struct OfProducts;

impl Transform<INPUTS, OUTPUTS> for OfProducts {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, values: [S::f32s; INPUTS]) -> [S::f32s; OUTPUTS] {
        let [zero, a, minus_a, b, minus_b, infinity] = values;
        let (even_a, odd_a) = (simd.add_f32s(a, minus_a), simd.sub_f32s(a, minus_a));
        let (even_b, odd_b) = (simd.add_f32s(b, minus_b), simd.sub_f32s(b, minus_b));
        [
            simd.add_f32s(zero, simd.add_f32s(even_a, even_b)),
            add_scaled(simd, scaled(simd, A, odd_a), B, odd_b),
            add_scaled(simd, scaled(simd, A2, even_a), B2, even_b),
            add_scaled(simd, add_scaled(simd, infinity, A * A2, odd_a), B * B2, odd_b),
        ]
    }
}

/// A polynomial at a point and at its negative, from the sum of its even powers, and that of its odd ones over the
/// point.
#[inline(always)]
fn at_plus_minus<S: Simd>(simd: S, point: f32, even: S::f32s, odd: S::f32s) -> [S::f32s; 2] {
    [add_scaled(simd, even, point, odd), add_scaled(simd, even, -point, odd)]
}

/// `factor * x`
#[inline(always)]
fn scaled<S: Simd>(simd: S, factor: f32, x: S::f32s) -> S::f32s {
    simd.mul_f32s(simd.splat_f32s(factor), x)
}

/// `sum + factor * x`, in one instruction where there is one.
#[inline(always)]
fn add_scaled<S: Simd>(simd: S, sum: S::f32s, factor: f32, x: S::f32s) -> S::f32s {
    simd.mul_add_f32s(simd.splat_f32s(factor), x, sum)
}
