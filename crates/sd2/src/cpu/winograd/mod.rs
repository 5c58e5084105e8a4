//! 3x3 convolutions by a quarter of the products, on channels-last maps in fp32 in a CPU's memory.
//!
//! Winograd's F(4x4, 3x3), after Lavin and Gray (2015, <https://arxiv.org/abs/1509.09308>): a tile of 6x6 inputs becomes 36
//! sums of them, and so does each kernel; what the two multiply to, summed over the channels, is 36 matrix products, and
//! sums of those are the 4x4 outputs of the tile. Directly these take 144 products a channel.
//!
//! libtorch's convolutions are direct ones, and its matrix products copy what they multiply, so that these are our own.

mod multiply;
mod transforms;

use std::cmp;
use std::mem;

use pulp::Arch;
use tch::{Device, Kind, Tensor};

use self::multiply::{Multiply, ROWS};
use self::transforms::{Gather, Kernels, Scatter};
use crate::cpu::numbers::{for_each, numbers, numbers_mut, threads_for};
use crate::layout::is_channels_last;

/// Outputs of a tile along an axis.
const OUT: usize = 4;

/// Inputs of a tile along an axis.
const IN: usize = 6;

/// Sums of a tile, and so matrix products.
const SUMS: usize = IN * IN;

/// About so many bytes of sums and products at a time stay in a core's cache until they are read.
const AT_ONCE: usize = 1 << 20;

/// The fewest tiles at a time: all kernels are read for them.
const FEWEST: usize = 12 * ROWS;

/// Fewer tiles for each thread than this do not make up for the sums of the kernels.
const WORTH: usize = 64;

/// All vectors are whole ones.
const MULTIPLE: i64 = 16;

/// Which way a convolution is gone.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// From its inputs to its outputs.
    There,
    /// From the gradients of its outputs to those of its inputs.
    Back,
}

/// Whether a convolution of stride 1 and padding 1 by `weight` `[outputs, inputs, 3, 3]` is faster so, there or back; `x` is
/// what it takes, `[n, channels, h, w]`.
pub(crate) fn suits(x: &Tensor, weight: &Tensor) -> bool {
    if x.device() != Device::Cpu || x.kind() != Kind::Float || weight.size()[2..] != [3, 3] {
        return false;
    }
    let (n, _, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
    let map = Map { h: h as usize, w: w as usize };
    n as usize * map.tiles() >= WORTH * tch::get_num_threads().max(1) as usize
        && weight.size()[..2].iter().all(|channels| channels % MULTIPLE == 0)
        && is_channels_last(x)
        && is_channels_last(weight)
        // Without vectors it is slower.
        && !matches!(Arch::new(), Arch::Scalar)
}

/// `[n, inputs, h, w]` to `[n, outputs, h, w]` by `weight` `[outputs, inputs, 3, 3]`, or the other way. Channels are
/// multiples of 16. Rounding errors are three to seven times those of a direct convolution, 1e-6 of the result.
pub(crate) fn convolve(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, way: Way) -> Tensor {
    convolve_by(Arch::new(), x, weight, bias, way)
}

fn convolve_by(arch: Arch, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, way: Way) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    let (n, inputs, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
    let taps = match way {
        Way::There => weight.permute([2, 3, 1, 0]),
        Way::Back => weight.flip([2, 3]).permute([2, 3, 0, 1]),
    };
    let outputs = taps.size()[3];
    let mut kernels = Tensor::empty([SUMS as i64, inputs, outputs], options);
    let mut y = Tensor::empty([n, h, w, outputs], options);
    let bias = bias.map_or_else(|| Tensor::zeros([outputs], options), Tensor::contiguous);

    let (n, inputs, outputs) = (n as usize, inputs as usize, outputs as usize);
    arch.dispatch(Kernels { taps: numbers(&taps.contiguous()), outputs, kernels: numbers_mut(&mut kernels) });

    let (map, len) = (Map { h: h as usize, w: w as usize }, y.numel());
    let [x, kernels, bias] = [x, &kernels, &bias].map(numbers);
    for_each(bands(map, n, threads_for(len), numbers_mut(&mut y)).into_iter(), |Band { first, end, y }| {
        let at_once = cmp::max(AT_ONCE / (SUMS * (inputs + outputs) * size_of::<f32>()), FEWEST);
        let at_once = cmp::min(at_once, end - first).next_multiple_of(ROWS);
        // Odd: a power of two would put all sums of a tile into one set of the cache.
        let room = at_once | 1;
        let [mut sums, mut products] = [inputs, outputs].map(|channels| vec![0.0; SUMS * room * channels]);
        let top = map.row(first);
        for first in (first..end).step_by(at_once) {
            let tiles = Tiles { map, first, count: cmp::min(at_once, end - first), room };
            arch.dispatch(Scatter { tiles, x, sums: &mut sums });
            arch.dispatch(Multiply { tiles, inputs, sums: &sums, kernels, products: &mut products });
            arch.dispatch(Gather { tiles, products: &products, bias, top, y });
        }
    });
    y.permute([0, 3, 1, 2])
}

/// Tiles from the first of a row of tiles to the last of another, and their outputs.
struct Band<'a> {
    first: usize,
    end: usize,
    y: &'a mut [f32],
}

/// A band for each thread, of `n` maps.
fn bands(map: Map, n: usize, threads: usize, mut y: &mut [f32]) -> Vec<Band<'_>> {
    let (all, pixels_of_row) = (n * map.tiles(), y.len() / (n * map.h));
    let each = (all / map.across()).div_ceil(threads) * map.across();
    let band = |first| {
        let end = cmp::min(first + each, all);
        let (of_band, rest) = mem::take(&mut y).split_at_mut((map.row(end) - map.row(first)) * pixels_of_row);
        y = rest;
        Band { first, end, y: of_band }
    };
    (0..all).step_by(each).map(band).collect()
}

/// Height and width of a map.
#[derive(Clone, Copy)]
struct Map {
    h: usize,
    w: usize,
}

impl Map {
    /// Tiles in a row.
    fn across(self) -> usize {
        self.w.div_ceil(OUT)
    }

    fn tiles(self) -> usize {
        self.h.div_ceil(OUT) * self.across()
    }

    /// Where a tile of a batch is.
    fn place(self, tile: usize) -> Place {
        let (sample, tile) = (tile / self.tiles(), tile % self.tiles());
        Place { sample, top: tile / self.across() * OUT, left: tile % self.across() * OUT }
    }

    /// The first row of outputs of a tile, among the rows of all maps of a batch.
    fn row(self, tile: usize) -> usize {
        let Place { sample, top, .. } = self.place(tile);
        sample * self.h + top
    }
}

/// Where a tile is: its map in the batch, and its first row and column of outputs.
struct Place {
    sample: usize,
    top: usize,
    left: usize,
}

/// Some tiles of a batch of maps.
#[derive(Clone, Copy)]
struct Tiles {
    map: Map,
    first: usize,
    count: usize,
    /// How many could be in the same place.
    room: usize,
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::layout::channels_last;
    use crate::testing::{random, relative_error};

    /// With all instructions that this processor has, and on maps whose last tiles are not whole.
    #[test]
    fn there_and_back_as_libtorch_has_it() {
        let wide = |x: &Tensor| x.to_kind(Kind::Double);
        // One, two and three vectors of outputs beside whole panels; several times as many tiles as are taken at once, of
        // which threads get whole rows.
        for (n, inputs, outputs, h, w) in
            [(1, 16, 32, 4, 4), (2, 32, 48, 9, 14), (3, 80, 16, 1, 7), (1, 64, 112, 6, 5), (2, 16, 64, 90, 90)]
        {
            let (x, gradient) = (random(&[n, inputs, h, w]), random(&[n, outputs, h, w]));
            let (weight, bias) = (random(&[outputs, inputs, 3, 3]), random(&[outputs]));
            let there = wide(&x).conv2d(&wide(&weight), Some(&wide(&bias)), [1], [1], [1], 1);
            let back = wide(&gradient).conv_transpose2d(&wide(&weight), None::<&Tensor>, [1], [1], [0], 1, [1]);
            let [x, gradient, weight] = [x, gradient, weight].map(|x| channels_last(&x));
            for (arch, threads) in iter::zip(instructions().into_iter().cycle(), [1, 1, 1, 3, 3, 3]) {
                tch::set_num_threads(threads);
                for (found, expected) in [
                    (convolve_by(arch, &x, &weight, Some(&bias), Way::There), &there),
                    (convolve_by(arch, &gradient, &weight, None, Way::Back), &back),
                ] {
                    let error = relative_error(&found, expected);
                    assert!(error < 2e-6, "{h}x{w}, {arch:?}, {threads}: {error}");
                }
            }
        }
    }

    fn instructions() -> Vec<Arch> {
        let mut all = vec![Arch::Scalar, Arch::new()];
        #[cfg(target_arch = "x86_64")]
        all.extend(pulp::x86::V3::try_new().map(Arch::V3));
        all
    }

    #[test]
    fn only_where_it_is_faster() {
        tch::set_num_threads(1);
        let map = |shape: [i64; 4]| channels_last(&Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
        let (x, weight) = (map([4, 64, 16, 16]), map([32, 64, 3, 3]));
        assert_eq!(suits(&x, &weight), !matches!(Arch::new(), Arch::Scalar));
        for (x, weight) in [
            (x.to_kind(Kind::BFloat16), weight.to_kind(Kind::BFloat16)),
            (map([4, 64, 8, 8]), weight.shallow_clone()),
            (x.contiguous(), weight.contiguous()),
            (x.shallow_clone(), map([24, 64, 3, 3])),
            (map([4, 72, 16, 16]), map([32, 72, 3, 3])),
            (x.shallow_clone(), map([32, 64, 1, 1])),
        ] {
            assert!(!suits(&x, &weight), "{x:?} by {weight:?}");
        }
    }
}
