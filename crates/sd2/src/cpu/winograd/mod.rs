//! 3x3 convolutions in a quarter of the multiplications, on channels-last maps in fp32 in a CPU's memory.
//!
//! Winograd's F(4x4, 3x3), after Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308:
//! a tile of 6x6 inputs is transformed to 36 elements, and so is each kernel. The products of the two, summed over the
//! channels, are 36 matrix products; transforming those back gives the 4x4 outputs of the tile. A direct convolution
//! takes 144 multiplications for these.
//!
//! libtorch's convolutions are direct, and its matrix products copy their operands, so the matrix products are our own.

mod multiply;
mod polynomials;
mod tiles;
mod transforms;

use std::cmp;

use pulp::Arch;
use tch::{Device, Kind, Tensor};

use self::multiply::{Multiply, ROWS};
use self::tiles::{Band, ELEMENTS, Map, Tiles, bands};
use self::transforms::{TransformInputs, TransformKernels, TransformOutputs};
use crate::cpu::memory::{filled, filled_map, numbers};
use crate::cpu::threads::{for_each, threads_for};
use crate::layout::is_channels_last;

/// Transformed tiles and their products of about this size stay in a core's cache until they are read.
const CACHED_BYTES: usize = 1 << 20;

/// At least as many tiles are multiplied at once: all kernels are read each time.
const MIN_TILES_AT_ONCE: usize = 12 * ROWS;

/// Fewer tiles for each thread than this do not make up for transforming the kernels.
const MIN_TILES_PER_THREAD: usize = 64;

/// Channels are multiples of this, so that all vectors are full.
const CHANNEL_MULTIPLE: i64 = 16;

/// Which way to go through a convolution.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    /// From the inputs to the outputs.
    Forward,
    /// From the gradient of the outputs to that of the inputs.
    Backward,
}

/// Whether [`convolve`] works, and is faster than a direct convolution, in either direction.
pub(crate) fn supports(x: &Tensor, weight: &Tensor) -> bool {
    if x.device() != Device::Cpu || x.kind() != Kind::Float || weight.size()[2..] != [3, 3] {
        return false;
    }
    let (n, _, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
    let map = Map { h: h as usize, w: w as usize };
    n as usize * map.tiles() >= MIN_TILES_PER_THREAD * tch::get_num_threads().max(1) as usize
        && weight.size()[..2].iter().all(|channels| channels % CHANNEL_MULTIPLE == 0)
        && is_channels_last(x)
        && is_channels_last(weight)
        // Without vectors it is slower.
        && !matches!(Arch::new(), Arch::Scalar)
}

/// A convolution of stride 1 and padding 1: `[n, inputs, h, w]` to `[n, outputs, h, w]` by `weight`
/// `[outputs, inputs, 3, 3]`, or backward. Rounding errors are three to seven times those of a direct convolution, 1e-6
/// of the result.
pub(crate) fn convolve(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, direction: Direction) -> Tensor {
    convolve_on(Arch::new(), x, weight, bias, direction)
}

fn convolve_on(arch: Arch, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, direction: Direction) -> Tensor {
    let (n, inputs, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
    let taps = match direction {
        Direction::Forward => weight.permute([2, 3, 1, 0]),
        Direction::Backward => weight.flip([2, 3]).permute([2, 3, 0, 1]),
    };
    let (taps, outputs) = (taps.contiguous(), taps.size()[3]);
    let kernels = filled(&[ELEMENTS as i64, inputs, outputs], |kernels: &mut [f32]| {
        arch.dispatch(TransformKernels { taps: numbers(&taps), outputs: outputs as usize, kernels });
    });
    let bias = bias.map_or_else(|| Tensor::zeros([outputs], (Kind::Float, Device::Cpu)), Tensor::contiguous);

    let map = Map { h: h as usize, w: w as usize };
    let [x, kernels, bias] = [x, &kernels, &bias].map(numbers);
    filled_map([n, outputs, h, w], |y: &mut [f32]| {
        let (inputs, outputs) = (inputs as usize, outputs as usize);
        let threads = threads_for(y.len());
        for_each(bands(map, n as usize, threads, y).into_iter(), |Band { first, end, y }| {
            let tile_bytes = ELEMENTS * (inputs + outputs) * size_of::<f32>();
            let at_once = cmp::min(cmp::max(CACHED_BYTES / tile_bytes, MIN_TILES_AT_ONCE), end - first);
            let at_once = at_once.next_multiple_of(ROWS);
            // Odd: with a power of two all elements of a tile would share one set of the cache.
            let capacity = at_once | 1;
            let [mut tiles, mut products] = [inputs, outputs].map(|channels| vec![0.0; ELEMENTS * capacity * channels]);
            let top = map.first_row(first);
            for first in (first..end).step_by(at_once) {
                let at = Tiles { map, first, count: cmp::min(at_once, end - first), capacity };
                arch.dispatch(TransformInputs { at, x, tiles: &mut tiles });
                arch.dispatch(Multiply { at, inputs, tiles: &tiles, kernels, products: &mut products });
                arch.dispatch(TransformOutputs { at, products: &products, bias, top, y });
            }
        });
    })
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::layout::channels_last;
    use crate::testing::{random, relative_error};

    /// With all instruction sets that this processor has, and on maps whose last tiles are not whole.
    #[test]
    fn forward_and_backward_match_libtorch() {
        let wide = |x: &Tensor| x.to_kind(Kind::Double);
        // One, two and three vectors of outputs beside whole panels; several times as many tiles as are computed at
        // once, of which threads get whole rows.
        for (n, inputs, outputs, h, w) in
            [(1, 16, 32, 4, 4), (2, 32, 48, 9, 14), (3, 80, 16, 1, 7), (1, 64, 112, 6, 5), (2, 16, 64, 90, 90)]
        {
            let (x, gradient) = (random(&[n, inputs, h, w]), random(&[n, outputs, h, w]));
            let (weight, bias) = (random(&[outputs, inputs, 3, 3]), random(&[outputs]));
            let y = wide(&x).conv2d(&wide(&weight), Some(&wide(&bias)), [1], [1], [1], 1);
            let grad_x = wide(&gradient).conv_transpose2d(&wide(&weight), None::<&Tensor>, [1], [1], [0], 1, [1]);
            let [x, gradient, weight] = [x, gradient, weight].map(|x| channels_last(&x));
            for (arch, threads) in iter::zip(instruction_sets().into_iter().cycle(), [1, 1, 1, 3, 3, 3]) {
                tch::set_num_threads(threads);
                for (found, expected) in [
                    (convolve_on(arch, &x, &weight, Some(&bias), Direction::Forward), &y),
                    (convolve_on(arch, &gradient, &weight, None, Direction::Backward), &grad_x),
                ] {
                    let error = relative_error(&found, expected);
                    assert!(error < 2e-6, "{h}x{w}, {arch:?}, {threads}: {error}");
                }
            }
        }
    }

    fn instruction_sets() -> Vec<Arch> {
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
        assert_eq!(supports(&x, &weight), !matches!(Arch::new(), Arch::Scalar));
        for (x, weight) in [
            (x.to_kind(Kind::BFloat16), weight.to_kind(Kind::BFloat16)),
            (map([4, 64, 8, 8]), weight.shallow_clone()),
            (x.contiguous(), weight.contiguous()),
            (x.shallow_clone(), map([24, 64, 3, 3])),
            (map([4, 72, 16, 16]), map([32, 72, 3, 3])),
            (x.shallow_clone(), map([32, 64, 1, 1])),
        ] {
            assert!(!supports(&x, &weight), "{x:?} by {weight:?}");
        }
    }
}
