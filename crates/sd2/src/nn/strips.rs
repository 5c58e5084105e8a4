//! Feature maps that are too large to be in memory twice, cut into strips of rows.
//!
//! A 3x3 convolution reads one row beyond its strip on either side, and a norm needs statistics of the whole map; so a
//! map goes through one layer after the other, strip by strip. A strip is freed as soon as the strip below it has
//! copied its last row: input and output of a layer are never both in memory as a whole.

use std::collections::VecDeque;
use std::iter;

use tch::{Kind, Tensor};

use crate::nn::layers::{Conv2d, GroupNorm};
use crate::nn::upsample::UpConv2d;

/// A feature map: strips `[n, channels, rows, w]` from the top down.
pub(crate) struct Strips(VecDeque<Tensor>);

/// A strip at the input of a layer.
pub(crate) struct Strip {
    /// The strip itself.
    pub(crate) rows: Tensor,
    /// The strip with the row above it and the row below it, where there are any.
    around: Tensor,
    /// How many rows `around` has above: 0 at the top of the map, else 1.
    above: i64,
    /// How many it has below.
    below: i64,
}

impl FromIterator<Tensor> for Strips {
    fn from_iter<I: IntoIterator<Item = Tensor>>(strips: I) -> Self {
        Self(strips.into_iter().collect())
    }
}

impl Strips {
    /// Cuts a map `[n, channels, h, w]` into strips of `rows` rows, of which the last may have fewer.
    pub(crate) fn cut(map: &Tensor, rows: i64) -> Self {
        map.split(rows, 2).into_iter().collect()
    }

    /// The map as a whole.
    pub(crate) fn join(self) -> Tensor {
        Tensor::cat(&Vec::from(self.0), 2)
    }

    /// Numbers of all strips.
    pub(crate) fn numbers(&self) -> i64 {
        self.0.iter().map(|strip| strip.numel() as i64).sum()
    }

    /// The strips as they are, from the top down.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = Tensor> {
        self.0.into_iter()
    }

    /// The strips one by one, from the top down. Each is freed when the next one is made.
    pub(crate) fn into_strips(mut self) -> impl Iterator<Item = Strip> {
        let mut last_row: Option<Tensor> = None;
        iter::from_fn(move || {
            let rows = self.0.pop_front()?;
            let next_row = self.0.front().map(|next| next.narrow(2, 0, 1));
            let (above, below) = (i64::from(last_row.is_some()), i64::from(next_row.is_some()));
            let around = Tensor::cat(
                &[last_row.as_ref(), Some(&rows), next_row.as_ref()].into_iter().flatten().collect::<Vec<_>>(),
                2,
            );
            // A copy: a view would keep the whole strip in memory.
            last_row = Some(rows.narrow(2, rows.size()[2] - 1, 1).copy());
            Some(Strip { rows, around, above, below })
        })
    }

    /// A norm with the statistics of this map.
    pub(crate) fn norm<'a>(&self, norm: &'a GroupNorm) -> Norm<'a> {
        let height: i64 = self.0.iter().map(|strip| strip.size()[2]).sum();
        let statistics: Vec<(f64, Tensor, Tensor)> = self
            .0
            .iter()
            .map(|strip| {
                let (mean, variance) = norm.statistics(strip);
                (strip.size()[2] as f64 / height as f64, mean, variance)
            })
            .collect();
        let sum = |value: &dyn Fn(&Tensor, &Tensor) -> Tensor| -> Tensor {
            statistics.iter().map(|(share, mean, variance)| value(mean, variance) * *share).sum()
        };
        let mean = sum(&|mean, _| mean.shallow_clone());
        // The variance of the map is that within the strips plus that of their means.
        let variance = sum(&|of_strip, variance| variance + (of_strip - &mean).square());
        Norm { norm, mean, variance }
    }
}

impl Strip {
    /// A 3x3 convolution of `activate` of the rows, a function that works pixel by pixel.
    pub(crate) fn convolve(&self, conv: &Conv2d, activate: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        // Beyond the map there are zeros.
        conv.forward_rows(&activate(&self.around), [1 - self.above, 1 - self.below])
    }

    /// The rows at half the height and width, by a 3x3 convolution of stride 2 without padding of its own: zeros are
    /// to the right of the map and below it. The number of rows is even.
    pub(crate) fn downsample(&self, conv: &Conv2d) -> Tensor {
        let rows = self.around.narrow(2, self.above, self.around.size()[2] - self.above);
        conv.forward(&rows.constant_pad_nd([0, 1, 0, 1 - self.below]))
    }

    /// The rows at twice the height and width.
    pub(crate) fn upsample(&self, conv: &UpConv2d) -> Tensor {
        conv.forward_rows(&self.around, [self.above, self.below])
    }
}

/// A group norm whose statistics are known.
pub(crate) struct Norm<'a> {
    norm: &'a GroupNorm,
    /// `[n, groups, 1]`.
    mean: Tensor,
    variance: Tensor,
}

impl Norm<'_> {
    /// Norm and SiLU of some rows of the map, with fp32 between the two.
    pub(crate) fn forward_silu(&self, rows: &Tensor) -> Tensor {
        let (scale, shift) = self.norm.affine(&self.mean, &self.variance);
        (rows.to_kind(Kind::Float) * scale).g_add_(&shift).silu_().to_kind(rows.kind())
    }
}
