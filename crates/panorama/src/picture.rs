//! A finished picture.

use tch::{Device, Kind, Tensor};

/// A finished picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `3 * width * height` bytes, row by row from the top.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// Of an image `[1, 3, height, width]` in 0..1. Truncated and not rounded, as in the original.
    pub(crate) fn of(image: &Tensor) -> Self {
        let bytes =
            (image.squeeze_dim(0).permute([1, 2, 0]) * 255.0).to_kind(Kind::Uint8).to_device(Device::Cpu).contiguous();
        let (height, width, channels) = bytes.size3().expect("a picture is [height, width, 3]");
        let mut rgb = vec![0; (height * width * channels) as usize];
        let numel = rgb.len();
        bytes.view([-1]).copy_data_u8(&mut rgb, numel);
        Self { width: width as u32, height: height as u32, rgb }
    }
}
