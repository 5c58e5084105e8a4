//! Channels-last: the order in which feature maps lie in a CPU's memory.

use tch::Tensor;

/// A copy of `[n, channels, h, w]` in the order that libtorch calls channels-last: in memory `[n, h, w, channels]`.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Whether a tensor `[n, channels, h, w]` is channels-last, and not at the same time contiguous as it is.
pub(crate) fn is_channels_last(x: &Tensor) -> bool {
    x.permute([0, 2, 3, 1]).is_contiguous() && !x.is_contiguous()
}

/// `count` copies of a batch of feature maps, one after the other, in the batch's own memory order.
pub(crate) fn copies(x: &Tensor, count: i64) -> Tensor {
    if count == 1 { x.shallow_clone() } else { Tensor::cat(&vec![x; count as usize], 0) }
}
