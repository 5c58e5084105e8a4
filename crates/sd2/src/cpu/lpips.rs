//! The way back through one stage of the perceptual network: from its distance, and from the pooling after it, to what
//! its last convolution gave.
//!
//! By autograd the lengths, quotients and squares in fp32 take longer than all convolutions. Here it is one way over a
//! channels-last map in a CPU's memory, in fp32, two rows at a time.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::iter;

use pulp::{Arch, NullaryFnOnce};
use tch::{Device, Kind, Tensor};

use crate::cpu::numbers::{Job, Number, by_kind, for_each, samples, samples_mut, threads_for};
use crate::layout::{channels_last, is_channels_last};
use crate::lpips::{TINY, distance, normalise, pool};

/// Sums are of so many, side by side.
const LANES: usize = 8;

/// A stage's weights of its channels.
pub(crate) struct Back {
    lin: Tensor,
    /// The same where the processor can read it.
    values: Option<Vec<f32>>,
}

impl Back {
    /// Of the weights `[1, channels, 1, 1]` in fp32.
    pub(crate) fn new(lin: &Tensor) -> Self {
        let values = (lin.device() == Device::Cpu)
            .then(|| Vec::try_from(lin.flatten(0, -1)).expect("one number for each channel, in memory"));
        Self { lin: lin.shallow_clone(), values }
    }

    /// The gradient of what the ReLU took, which gave `map` `[n, channels, h, w]`. `targets` are features, as many or one
    /// for all, and `of_pooled` is the gradient of [`pool`] of the map, if a stage follows.
    pub(crate) fn run(&self, map: &Tensor, targets: &Tensor, of_pooled: Option<&Tensor>) -> Tensor {
        let Some(lin) = self.values.as_ref().filter(|_| is_channels_last(map)) else {
            return self.by_autograd(map, targets, of_pooled);
        };
        let ordered = |x: &Tensor| if is_channels_last(x) { x.shallow_clone() } else { channels_last(x) };
        let (targets, of_pooled) = (ordered(targets), of_pooled.map(ordered));
        // The derivative of the mean of squares.
        let (height, width) = (map.size()[2], map.size()[3]);
        let lin: Vec<f32> = lin.iter().map(|lin| 2.0 * lin / (height * width) as f32).collect();
        let mut of_map = map.empty_like();
        let (targets, of_pooled) = (&targets, of_pooled.as_ref());
        by_kind(map.kind(), Maps { lin: &lin, width: width as usize, map, targets, of_pooled, of_map: &mut of_map });
        of_map
    }

    fn by_autograd(&self, map: &Tensor, targets: &Tensor, of_pooled: Option<&Tensor>) -> Tensor {
        let leaf = map.detach().set_requires_grad(true);
        let total = tch::with_grad(|| {
            let total = distance(&normalise(&leaf), targets, &self.lin).sum(Kind::Float);
            // The gradient of this product with respect to what was pooled is the gradient.
            of_pooled.map_or_else(|| total.shallow_clone(), |g| &total + (pool(&leaf) * g).sum(Kind::Float))
        });
        map.threshold_backward(&Tensor::run_backward(&[total], &[leaf], false, false)[0], 0.0)
    }
}

struct Maps<'a> {
    lin: &'a [f32],
    width: usize,
    map: &'a Tensor,
    targets: &'a Tensor,
    of_pooled: Option<&'a Tensor>,
    of_map: &'a mut Tensor,
}

impl Job for Maps<'_> {
    fn run<T: Number>(self) {
        let Self { lin, width, .. } = self;
        let none = &[][..];
        let pooled: Vec<&[T]> = self.of_pooled.map(|of_pooled| samples(of_pooled).collect()).unwrap_or_default();
        let maps = iter::zip(samples::<T>(self.map), samples_mut::<T>(self.of_map));
        let maps = maps.zip(samples(self.targets).cycle()).zip(pooled.into_iter().chain(iter::repeat(none)));
        for (((map, of_map), target), of_pooled) in maps {
            // Pairs of rows for each thread; nothing is pooled of an odd last row.
            let (pair, of_pair) = (2 * width * lin.len(), width / 2 * lin.len());
            let pairs = map.len().div_ceil(pair).div_ceil(threads_for(map.len()));
            let parts = iter::zip(map.chunks(pairs * pair), of_map.chunks_mut(pairs * pair))
                .zip(target.chunks(pairs * pair))
                .zip(of_pooled.chunks((pairs * of_pair).max(1)).chain(iter::repeat(none)));
            for_each(parts, |(((map, of_map), target), of_pooled)| {
                Arch::new().dispatch(Rows { lin, width, map, target, of_pooled, of_map });
            });
        }
    }
}

/// Some pairs of rows, and perhaps an odd last one.
struct Rows<'a, T> {
    lin: &'a [f32],
    width: usize,
    map: &'a [T],
    target: &'a [f32],
    of_pooled: &'a [T],
    of_map: &'a mut [T],
}

impl<T: Number> NullaryFnOnce for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let row = self.width * self.lin.len();
        let mut of_pooled = self.of_pooled.chunks((self.width / 2 * self.lin.len()).max(1));
        let pairs = iter::zip(self.map.chunks(2 * row), self.of_map.chunks_mut(2 * row));
        for ((map, of_map), target) in pairs.zip(self.target.chunks(2 * row)) {
            let pixels = iter::zip(map.chunks(self.lin.len()), of_map.chunks_mut(self.lin.len()));
            for ((map, of_map), target) in pixels.zip(target.chunks(self.lin.len())) {
                compare(map, target, self.lin, of_map);
            }
            if let Some(of_pooled) = of_pooled.next() {
                unpool(map, of_pooled, self.lin.len(), of_map);
            }
        }
    }
}

/// The gradient of the channels `x` of one pixel, and 0 where the ReLU gave 0. With r = 1 / (|x| + tiny), and p = the
/// gradient of x r, which is `lin (x r - target)`, it is `r (p - x (x . p) r / |x|)`.
#[inline(always)]
fn compare<T: Number>(x: &[T], target: &[f32], lin: &[f32], of_x: &mut [T]) {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let (target_blocks, target_rest) = target.as_chunks::<LANES>();
    let (lin_blocks, lin_rest) = lin.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for x in blocks {
        for (sum, x) in iter::zip(&mut sums, x) {
            *sum += x.wide() * x.wide();
        }
    }
    let mut square: f32 = sums.iter().sum();
    for x in rest {
        square += x.wide() * x.wide();
    }
    if square == 0.0 {
        return of_x.fill(T::narrow(0.0));
    }
    let length = square.sqrt();
    let r = 1.0 / (length + TINY);
    let mut sums = [0.0; LANES];
    for (x, (target, lin)) in iter::zip(blocks, iter::zip(target_blocks, lin_blocks)) {
        for (sum, (x, (target, lin))) in iter::zip(&mut sums, iter::zip(x, iter::zip(target, lin))) {
            *sum += lin * (x.wide() * r - target) * x.wide();
        }
    }
    let mut dot: f32 = sums.iter().sum();
    for (x, (target, lin)) in iter::zip(rest, iter::zip(target_rest, lin_rest)) {
        dot += lin * (x.wide() * r - target) * x.wide();
    }
    let of_length = dot * r / length;
    for ((x, of_x), (target, lin)) in iter::zip(iter::zip(x, of_x), iter::zip(target, lin)) {
        let x = x.wide();
        let of_features = lin * (x * r - target);
        *of_x = T::narrow(if x > 0.0 { r * (of_features - x * of_length) } else { 0.0 });
    }
}

/// Adds the gradient of a pooled row to that of the two rows: each number to the first of the largest of four, if the
/// ReLU let it through.
#[inline(always)]
fn unpool<T: Number>(rows: &[T], of_pooled: &[T], channels: usize, of_rows: &mut [T]) {
    let (top, bottom) = rows.split_at(rows.len() / 2);
    let (of_top, of_bottom) = of_rows.split_at_mut(rows.len() / 2);
    let rows = iter::zip(top.chunks(2 * channels), bottom.chunks(2 * channels));
    let of_rows = iter::zip(of_top.chunks_mut(2 * channels), of_bottom.chunks_mut(2 * channels));
    for (((top, bottom), (of_top, of_bottom)), of_pooled) in rows.zip(of_rows).zip(of_pooled.chunks(channels)) {
        let (top, bottom) = (top.split_at(channels), bottom.split_at(channels));
        let (of_top, of_bottom) = (of_top.split_at_mut(channels), of_bottom.split_at_mut(channels));
        let four = iter::zip(iter::zip(top.0, top.1), iter::zip(bottom.0, bottom.1));
        let of_four = iter::zip(iter::zip(of_top.0, of_top.1), iter::zip(of_bottom.0, of_bottom.1));
        for ((((a, b), (c, d)), ((of_a, of_b), (of_c, of_d))), of_pooled) in four.zip(of_four).zip(of_pooled) {
            let (a, b, c, d) = (a.wide(), b.wide(), c.wide(), d.wide());
            let largest = a.max(b).max(c.max(d));
            let of_largest = if largest > 0.0 { of_pooled.wide() } else { 0.0 };
            let (is_a, is_b, is_c) = (a == largest, b == largest, c == largest);
            let share = |mine: bool| if mine { of_largest } else { 0.0 };
            *of_a = T::narrow(of_a.wide() + share(is_a));
            *of_b = T::narrow(of_b.wide() + share(!is_a && is_b));
            *of_c = T::narrow(of_c.wide() + share(!is_a && !is_b && is_c));
            *of_d = T::narrow(of_d.wide() + share(!is_a && !is_b && !is_c));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, relative_error};

    /// Against autograd in fp32, relative to the length.
    #[test]
    fn back_as_autograd_has_it() {
        // Whole lanes and not, even and odd rows, as many targets and one for all, maps for several threads.
        for (shape, targets) in
            [([2, 8, 4, 6], 2), ([3, 12, 5, 7], 1), ([1, 3, 2, 2], 1), ([2, 64, 9, 16], 2), ([1, 16, 161, 130], 1)]
        {
            let [n, channels, height, width] = shape;
            let back = Back::new(&random(&[1, channels, 1, 1]).abs());
            let map = channels_last(&random(&shape).relu());
            let targets = normalise(&random(&[targets, channels, height, width]).relu());
            // As large as what comes of the distance.
            let of_pooled = random(&[n, channels, height / 2, width / 2]) / (height * width);
            // In f16 some are so small that they have few bits.
            for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 1e-2), (Kind::Half, 5e-3)] {
                let map = map.to_kind(kind);
                for of_pooled in [None, Some(&of_pooled.to_kind(kind))] {
                    let wide = of_pooled.map(|g| g.to_kind(Kind::Float));
                    let expected = back.by_autograd(&map.to_kind(Kind::Float).contiguous(), &targets, wide.as_ref());
                    for threads in [1, 3] {
                        tch::set_num_threads(threads);
                        let found = back.run(&map, &targets, of_pooled).to_kind(Kind::Float);
                        let error = relative_error(&found, &expected);
                        assert!(error < tolerance, "{shape:?} {kind:?} {} {threads}: {error}", of_pooled.is_some());
                    }
                }
            }
        }
    }
}
