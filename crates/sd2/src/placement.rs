//! Where tensors live and which dtypes they have.

use tch::{Device, Kind};

/// How an upsampling to twice the height and width and the 3x3 convolution after it are computed. The result is the
/// same up to rounding; which is fastest depends on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upsampling {
    /// A transposed convolution with a 4x4 kernel: 4/9 of the multiplications.
    Transposed,
    /// As it is written: a map of four times the size, and then the convolution.
    Nearest,
    /// Four convolutions with 2x2 kernels, whose outputs are interleaved: 4/9 of the multiplications.
    Four,
}

/// Device, dtypes and memory order of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// The device of weights and activations.
    pub device: Device,
    /// The dtype of the text encoder and the UNet: of their weights, and of the activations between their norms.
    pub kind: Kind,
    /// The same for the decoder and the perceptual network.
    pub picture_kind: Kind,
    /// The decoder divides its residual stream by 2 to the power of this, which its norms undo: the picture is the
    /// same, bit for bit in fp32, and numbers that much larger fit into fp16.
    pub stream_exponent: i32,
    /// Whether feature maps lie in memory as `[n, h, w, channels]`. On a CPU convolutions are faster that way, in bf16
    /// with AMX up to four times, and this crate has norms for it that are faster than libtorch's.
    pub channels_last: bool,
    /// Whether attention is computed in fp32 where a configuration asks for it (`upcast_attention`). In 16 bit a GPU
    /// does not need it: its fused attention sums up in fp32 anyway, and takes several times as long in fp32. diffusers
    /// ignores the key wherever fused attention is used.
    pub upcast_attention: bool,
    /// How maps are upsampled.
    pub upsampling: Upsampling,
}

/// Gives fp16 a range of 2 million in the decoder, whose residual stream may leave that of 65504.
const STREAM_EXPONENT: i32 = 5;

impl Placement {
    /// The best choice for a device and a dtype of weights.
    pub const fn new(device: Device, kind: Kind) -> Self {
        let on_cpu = matches!(device, Device::Cpu);
        // In fp32 the two networks would take the largest part of a GPU's time. A CPU gains nothing by fp16.
        let picture_kind = if on_cpu && matches!(kind, Kind::Half) { Kind::Float } else { kind };
        // bf16 has the range of fp32.
        let stream_exponent = if matches!(picture_kind, Kind::Half) { STREAM_EXPONENT } else { 0 };
        let upcast_attention = on_cpu || matches!(kind, Kind::Float);
        let upsampling = Upsampling::Transposed;
        Self { device, kind, picture_kind, stream_exponent, channels_last: on_cpu, upcast_attention, upsampling }
    }

    /// What a GPU gets, but on the CPU: so tests can go the same way without one.
    pub const fn of_gpu_on_cpu(kind: Kind) -> Self {
        Self { device: Device::Cpu, ..Self::new(Device::Cuda(0), kind) }
    }
}
