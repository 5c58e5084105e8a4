//! The backward pass of one stage of LPIPS: from the distance that the stage adds, and from the pooling after it, to
//! the input of its last ReLU.
//!
//! By autograd the lengths, quotients and squares in fp32 take longer than all convolutions. Here it is one pass over a
//! channels-last map in a CPU's memory, in fp32, two rows at a time.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::iter;

use pulp::{Arch, NullaryFnOnce};
use tch::Tensor;

use super::memory::{filled_map, sample_len, samples};
use super::numbers::{ForDtype, Number, for_dtype};
use super::threads::{for_each, threads_for};

/// Partial sums that are computed side by side.
const LANES: usize = 8;

/// A stage's weights of its channels.
pub(super) struct LpipsKernel {
    lin: Vec<f32>,
    /// Added to lengths.
    epsilon: f32,
}

impl LpipsKernel {
    /// With the weights `[1, channels, 1, 1]` in fp32.
    pub(super) fn new(lin: &Tensor, epsilon: f32) -> Self {
        let lin = Vec::try_from(lin.flatten(0, -1)).expect("one number for each channel, in memory");
        Self { lin, epsilon }
    }

    /// The gradient of the input of the ReLU whose output is `map` `[n, channels, h, w]`. `targets` are features, `n`
    /// or one for all, in fp32, and `grad_pooled` is the gradient of the map's max pooling, if there is one. All are
    /// channels-last. The distances are divided by `scale` `[n, 1, 1, 1]`.
    pub(super) fn backward(
        &self,
        map: &Tensor,
        targets: &Tensor,
        grad_pooled: Option<&Tensor>,
        scale: Option<&Tensor>,
    ) -> Tensor {
        let (n, channels, height, width) = map.size4().expect("feature maps are [n, channels, h, w]");
        // The derivative of the mean of squares.
        let lin: Vec<f32> = self.lin.iter().map(|lin| 2.0 * lin / (height * width) as f32).collect();
        let lins = match scale.map(|scale| Vec::<f32>::try_from(scale.flatten(0, -1)).expect("one number for each map"))
        {
            Some(scales) => scales.iter().map(|scale| lin.iter().map(|lin| lin / scale).collect()).collect(),
            None => vec![lin],
        };
        let size = [n, channels, height, width];
        for_dtype(map.kind(), Maps { lins: &lins, epsilon: self.epsilon, size, map, targets, grad_pooled })
    }
}

struct Maps<'a> {
    /// One for each map, or one for all.
    lins: &'a [Vec<f32>],
    epsilon: f32,
    size: [i64; 4],
    map: &'a Tensor,
    targets: &'a Tensor,
    grad_pooled: Option<&'a Tensor>,
}

impl ForDtype for Maps<'_> {
    fn run<T: Number>(self) -> Tensor {
        let Self { lins, epsilon, size, .. } = self;
        let width = size[3] as usize;
        let none = &[][..];
        let pooled: Vec<&[T]> = self.grad_pooled.map(|grad_pooled| samples(grad_pooled).collect()).unwrap_or_default();
        filled_map(size, |grad_map: &mut [T]| {
            let maps = iter::zip(samples::<T>(self.map), grad_map.chunks_mut(sample_len(&size)));
            let maps = maps.zip(samples(self.targets).cycle()).zip(pooled.into_iter().chain(iter::repeat(none)));
            for ((((map, grad_map), target), grad_pooled), lin) in maps.zip(lins.iter().cycle()) {
                // Pairs of rows for each thread; an odd last row is not pooled.
                let (pair, pooled_pair) = (2 * width * lin.len(), width / 2 * lin.len());
                let pairs = map.len().div_ceil(pair).div_ceil(threads_for(map.len()));
                let parts = iter::zip(map.chunks(pairs * pair), grad_map.chunks_mut(pairs * pair))
                    .zip(target.chunks(pairs * pair))
                    .zip(grad_pooled.chunks((pairs * pooled_pair).max(1)).chain(iter::repeat(none)));
                for_each(parts, |(((map, grad_map), target), grad_pooled)| {
                    Arch::new().dispatch(Rows { lin, epsilon, width, map, target, grad_pooled, grad_map });
                });
            }
        })
    }
}

/// Some pairs of rows, and perhaps an odd last one.
struct Rows<'a, T> {
    lin: &'a [f32],
    epsilon: f32,
    width: usize,
    map: &'a [T],
    target: &'a [f32],
    grad_pooled: &'a [T],
    grad_map: &'a mut [T],
}

impl<T: Number> NullaryFnOnce for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let channels = self.lin.len();
        let row = self.width * channels;
        let mut grad_pooled = self.grad_pooled.chunks((self.width / 2 * channels).max(1));
        let pairs = iter::zip(self.map.chunks(2 * row), self.grad_map.chunks_mut(2 * row));
        for ((map, grad_map), target) in pairs.zip(self.target.chunks(2 * row)) {
            let pixels = iter::zip(map.chunks(channels), grad_map.chunks_mut(channels));
            for ((x, grad_x), target) in pixels.zip(target.chunks(channels)) {
                distance_backward(x, target, self.lin, self.epsilon, grad_x);
            }
            if let Some(grad_pooled) = grad_pooled.next() {
                pool_backward(map, grad_pooled, channels, grad_map);
            }
        }
    }
}

// The loops of both functions are nested zips because these vectorise: they leave no bounds to check.

/// The gradient of the channels `x` of one pixel, through the distance, and 0 where the ReLU's output is 0.
///
/// With `r = 1 / (|x| + epsilon)` the features are `x r`, their gradient is `lin (x r - target)`, and that of `x` is
/// `r (lin (x r - target) - x (x . lin (x r - target)) r / |x|)`.
#[inline(always)]
fn distance_backward<T: Number>(x: &[T], target: &[f32], lin: &[f32], epsilon: f32, grad_x: &mut [T]) {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let (target_blocks, target_rest) = target.as_chunks::<LANES>();
    let (lin_blocks, lin_rest) = lin.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for x in blocks {
        for (sum, x) in iter::zip(&mut sums, x) {
            *sum += x.widen() * x.widen();
        }
    }
    let mut square: f32 = sums.iter().sum();
    for x in rest {
        square += x.widen() * x.widen();
    }
    if square == 0.0 {
        return grad_x.fill(T::narrow(0.0));
    }
    let length = square.sqrt();
    let r = 1.0 / (length + epsilon);
    let mut sums = [0.0; LANES];
    for (x, (target, lin)) in iter::zip(blocks, iter::zip(target_blocks, lin_blocks)) {
        for (sum, (x, (target, lin))) in iter::zip(&mut sums, iter::zip(x, iter::zip(target, lin))) {
            *sum += lin * (x.widen() * r - target) * x.widen();
        }
    }
    let mut dot: f32 = sums.iter().sum();
    for (x, (target, lin)) in iter::zip(rest, iter::zip(target_rest, lin_rest)) {
        dot += lin * (x.widen() * r - target) * x.widen();
    }
    let grad_length = dot * r / length;
    for ((x, grad_x), (target, lin)) in iter::zip(iter::zip(x, grad_x), iter::zip(target, lin)) {
        let x = x.widen();
        let grad_features = lin * (x * r - target);
        // What is not a number stays so, and is found in the gradient.
        *grad_x = T::narrow(if x <= 0.0 { 0.0 } else { r * (grad_features - x * grad_length) });
    }
}

/// Adds the gradient of a row of a 2x2 max pooling to that of the two rows that it pools: each number to the first of
/// the largest of four, unless the ReLU's output is 0 there.
#[inline(always)]
fn pool_backward<T: Number>(rows: &[T], grad_pooled: &[T], channels: usize, grad_rows: &mut [T]) {
    let (top, bottom) = rows.split_at(rows.len() / 2);
    let (grad_top, grad_bottom) = grad_rows.split_at_mut(rows.len() / 2);
    let squares = iter::zip(top.chunks(2 * channels), bottom.chunks(2 * channels));
    let grad_squares = iter::zip(grad_top.chunks_mut(2 * channels), grad_bottom.chunks_mut(2 * channels));
    for ((square, grad_square), grad_pooled) in squares.zip(grad_squares).zip(grad_pooled.chunks(channels)) {
        let (top, bottom) = (square.0.split_at(channels), square.1.split_at(channels));
        let (grad_top, grad_bottom) = (grad_square.0.split_at_mut(channels), grad_square.1.split_at_mut(channels));
        let values = iter::zip(iter::zip(top.0, top.1), iter::zip(bottom.0, bottom.1));
        let grads = iter::zip(iter::zip(grad_top.0, grad_top.1), iter::zip(grad_bottom.0, grad_bottom.1));
        for ((values, grads), grad_pooled) in values.zip(grads).zip(grad_pooled) {
            let ((top_left, top_right), (bottom_left, bottom_right)) = values;
            let ((grad_top_left, grad_top_right), (grad_bottom_left, grad_bottom_right)) = grads;
            let (top_left, top_right) = (top_left.widen(), top_right.widen());
            let (bottom_left, bottom_right) = (bottom_left.widen(), bottom_right.widen());
            let largest = top_left.max(top_right).max(bottom_left.max(bottom_right));
            let grad_largest = if largest > 0.0 { grad_pooled.widen() } else { 0.0 };
            let at_top_left = top_left == largest;
            let at_top_right = !at_top_left && top_right == largest;
            let at_bottom_left = !at_top_left && !at_top_right && bottom_left == largest;
            let at_bottom_right = !at_top_left && !at_top_right && !at_bottom_left;
            let share = |is_largest: bool| if is_largest { grad_largest } else { 0.0 };
            *grad_top_left = T::narrow(grad_top_left.widen() + share(at_top_left));
            *grad_top_right = T::narrow(grad_top_right.widen() + share(at_top_right));
            *grad_bottom_left = T::narrow(grad_bottom_left.widen() + share(at_bottom_left));
            *grad_bottom_right = T::narrow(grad_bottom_right.widen() + share(at_bottom_right));
        }
    }
}
