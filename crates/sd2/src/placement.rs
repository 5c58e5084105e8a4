//! Where tensors live and which dtypes they have.

use tch::{Device, Kind};

/// Device, dtypes and memory order of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// The device of weights and activations.
    pub device: Device,
    /// The dtype of the text encoder and the UNet: of their weights, and of the activations between their norms.
    pub kind: Kind,
    /// The same for the decoder and the perceptual network, whose activations overflow fp16.
    pub picture_kind: Kind,
    /// Whether feature maps lie in memory as `[n, h, w, channels]`. On a CPU convolutions are faster that way, in bf16
    /// with AMX up to four times, and this crate has norms for it that are faster than libtorch's.
    pub channels_last: bool,
    /// Whether attention is computed in fp32 where a configuration asks for it (`upcast_attention`). In 16 bit a GPU
    /// does not need it: its fused attention sums up in fp32 anyway, and takes several times as long in fp32. diffusers
    /// ignores the key wherever fused attention is used.
    pub upcast_attention: bool,
}

impl Placement {
    /// The best choice for a device and a dtype of weights.
    pub const fn new(device: Device, kind: Kind) -> Self {
        // The decoder's activations and the perceptual norms leave the range of fp16; bf16 has the range of fp32.
        let picture_kind = if matches!(kind, Kind::Half) { Kind::Float } else { kind };
        let on_cpu = matches!(device, Device::Cpu);
        let upcast_attention = on_cpu || matches!(kind, Kind::Float);
        Self { device, kind, picture_kind, channels_last: on_cpu, upcast_attention }
    }
}
