//! Pictures, as they come in and as they go out.

use std::fmt;

use tch::{Device, Kind, Tensor};

/// A picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `3 * width * height` bytes, row by row from the top.
    pub rgb: Vec<u8>,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

impl Picture {
    /// As an image `[1, 3, height, width]` in 0..1, on the CPU.
    pub(crate) fn image(&self) -> Tensor {
        let bytes = Tensor::from_slice(&self.rgb).view([i64::from(self.height), i64::from(self.width), 3]);
        bytes.permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float).contiguous() / 255.0
    }

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

/// An image `[1, 3, h, w]` in 0..1 at another size, `[height, width]`: bicubic, and smoothed first where it gets
/// smaller, as by Pillow.
pub(crate) fn resized(image: &Tensor, size: [i64; 2]) -> Tensor {
    if image.size()[2..] == size {
        return image.shallow_clone();
    }
    image.contiguous().internal_upsample_bicubic2d_aa(size, false, None, None).clamp(0.0, 1.0)
}

/// The largest square in the middle of an image.
pub(crate) fn square(image: &Tensor) -> Tensor {
    let (_, _, height, width) = image.size4().expect("an image is [1, 3, h, w]");
    let side = height.min(width);
    image.narrow(2, (height - side) / 2, side).narrow(3, (width - side) / 2, side)
}
