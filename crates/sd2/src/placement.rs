//! Where tensors live and what they are made of.

use tch::{Device, Kind};

/// Where tensors live and what they are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// The device.
    pub device: Device,
    /// The dtype of the text encoder's and the UNet's weights, and of what flows between their norms.
    pub kind: Kind,
    /// The same for the decoder and the perceptual network, whose activations do not fit fp16.
    pub picture_kind: Kind,
    /// Whether feature maps lie in memory as `[n, h, w, channels]`. On a CPU convolutions are faster with it, in bf16 with
    /// AMX up to four times, and there are norms for it that are faster than libtorch's.
    pub channels_last: bool,
}

impl Placement {
    /// What serves best on a device with weights of a dtype.
    pub const fn new(device: Device, kind: Kind) -> Self {
        // The decoder's activations and the perceptual norms leave the range of fp16; bf16 has the range of fp32.
        let picture_kind = if matches!(kind, Kind::Half) { Kind::Float } else { kind };
        Self { device, kind, picture_kind, channels_last: matches!(device, Device::Cpu) }
    }
}
