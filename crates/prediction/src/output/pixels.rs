//! What was read of a picture, and how large it may be.

/// The most bytes of RGB that a picture may have: that of a frame to a worker.
const MAX_RGB: u64 = protocol::frame::MAX_BYTES;

/// The pixels of a picture.
pub(super) struct Pixels {
    /// Width and height.
    pub(super) size: (u32, u32),
    /// `3 * width * height` bytes, row by row from the top.
    pub(super) rgb: Vec<u8>,
}

/// A size, if it is not too large, as is asked before anything is decoded.
pub(super) fn fitting((width, height): (u32, u32)) -> Result<(u32, u32), String> {
    if 3 * u64::from(width) * u64::from(height) > MAX_RGB {
        return Err(format!("has {width}x{height} pixels, more than a worker takes (1 GiB of RGB)"));
    }
    Ok((width, height))
}
