//! Gradient scaling: backward passes in f16 compute multiples of gradients, so that these do not underflow.
//!
//! The more pixels a distance is the mean of, the smaller its gradients. A backward pass is linear, so it may begin
//! with a multiple of its gradient, and divide the result by the factor. The factors are powers of two: nothing is
//! rounded.

use tch::Tensor;

/// Gradient scaling brings the largest number of each window's gradient between half of this and this. f16 has room for
/// numbers a thousand times as large, and a million times as small.
const MAX_SCALED_GRADIENT: f64 = 64.0;

/// What to divide the gradient of each window by, `[windows, 1, 1, 1]` in fp32: powers of two, and never 0. Sample
/// `branch * windows + window` of the gradient is that of a branch of a window.
pub(crate) fn gradient_scale(gradient: &Tensor, branches: i64) -> Tensor {
    let windows = gradient.size()[0] / branches;
    let largest = gradient.abs().reshape([branches, windows, -1]).amax([0, 2].as_slice(), false);
    power_of_two(&largest) / MAX_SCALED_GRADIENT
}

/// The same for a gradient to which others are added on the way back, which may be larger: of at least `least`.
pub(crate) fn gradient_scale_of_part(gradient: &Tensor, least: f64) -> Tensor {
    let largest = gradient.abs().flatten(1, -1).amax([1].as_slice(), false).clamp_min(least);
    power_of_two(&largest) / MAX_SCALED_GRADIENT
}

/// For each number the smallest power of two above it, `[n, 1, 1, 1]`.
fn power_of_two(numbers: &Tensor) -> Tensor {
    let numbers = numbers.clamp_min(1e-30);
    // A number without its mantissa is a power of two.
    let (mantissa, _) = numbers.frexp();
    (numbers / mantissa).view([-1, 1, 1, 1])
}
