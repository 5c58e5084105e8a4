//! The order in which feature maps lie in memory.

use tch::Tensor;

/// A copy in the order that libtorch calls channels-last: in memory `[n, h, w, channels]`.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Whether a tensor `[n, channels, h, w]` has that order.
pub(crate) fn is_channels_last(x: &Tensor) -> bool {
    x.permute([0, 2, 3, 1]).is_contiguous() && !x.is_contiguous()
}

/// Copies of all samples of a feature map one after the other, in the order it has.
pub(crate) fn copies(x: &Tensor, count: i64) -> Tensor {
    if count == 1 { x.shallow_clone() } else { Tensor::cat(&vec![x; count as usize], 0) }
}
