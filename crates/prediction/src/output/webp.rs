//! WebP, without loss, with Exif and with XMP, which has the input, too.

use std::io;

use image_webp::{ColorType, DecodingError, WebPDecoder, WebPEncoder};

use super::exif;
use super::metadata::Metadata;
use super::pixels::{Pixels, fitting};

/// Encodes RGB whose length fits the size.
pub(super) fn encode(rgb: &[u8], (width, height): (u32, u32), metadata: Option<&Metadata<'_>>) -> io::Result<Vec<u8>> {
    let mut webp = Vec::with_capacity(rgb.len() / 2);
    let mut encoder = WebPEncoder::new(&mut webp);
    if let Some(metadata) = metadata {
        encoder.set_exif_metadata(exif::comment(&metadata.parameters(), usize::MAX));
        encoder.set_xmp_metadata(metadata.xmp_with_input()?.into_bytes());
    }
    encoder.encode(rgb, width, height, ColorType::Rgb8).map_err(io::Error::other)?;
    Ok(webp)
}

/// Reads a WebP, and the input that it was made from.
pub(super) fn read(bytes: &[u8]) -> Result<(Pixels, Option<String>), String> {
    let wrong = |error: DecodingError| match error {
        DecodingError::IoError(_) => "is a WebP that ends too early".to_owned(),
        error => format!("is a damaged WebP: {error}"),
    };
    let mut decoder = WebPDecoder::new(io::Cursor::new(bytes)).map_err(wrong)?;
    let size = fitting(decoder.dimensions())?;
    let mut pixels = vec![0; decoder.output_buffer_size().ok_or("is too large")?];
    decoder.read_image(&mut pixels).map_err(wrong)?;
    let rgb = if decoder.has_alpha() {
        pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
    } else {
        pixels
    };
    let xmp = decoder.xmp_metadata().ok().flatten().and_then(|xmp| String::from_utf8(xmp).ok());
    Ok((Pixels { size, rgb }, xmp.as_deref().and_then(Metadata::input_of_xmp)))
}
