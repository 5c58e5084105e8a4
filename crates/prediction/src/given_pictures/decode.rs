//! From the bytes of a file to RGB: PNG, JPEG and WebP, whatever the client calls it.
//!
//! The picture is turned as its EXIF says. What is transparent is laid over white, 16 bits become 8, CMYK becomes RGB;
//! colour profiles are not applied. Of an animation it is the first picture.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, ImageResult, Limits, RgbImage};
use protocol::Format;

use crate::input::MAX_PICTURE;
use crate::input::data_uri::too_large;
use crate::shown::shown_up_to;

/// The most pixels of a picture. Decoding takes up to about 12 bytes for each.
pub(crate) const MAX_PIXELS: u64 = 50_000_000;
/// The longest side in pixels.
const MAX_SIDE: u32 = 32_768;
/// The most bytes that a decoder takes besides pixels.
const MAX_BESIDE: u64 = 64 << 20;
/// How much of a decoder's words is repeated.
const MAX_WORDS: usize = 200;

/// What people send instead: an offset, the bytes there, and a name.
const OTHERS: [(usize, &[u8], &str); 8] = [
    (0, b"GIF8", "a GIF"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftyp", "a HEIF or a video"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"BM", "a BMP"),
    (0, b"%PDF", "a PDF"),
    (0, b"{", "JSON"),
];

/// The format of a file, by its first bytes.
///
/// # Errors
/// What it is instead.
pub(crate) fn format_of(bytes: &[u8]) -> Result<Format, String> {
    if bytes.is_empty() {
        return Err("the picture has no bytes".to_owned());
    }
    let has = |(at, start): (usize, &[u8])| bytes.get(at..).is_some_and(|rest| rest.starts_with(start));
    if has((0, b"\x89PNG\r\n\x1a\n")) {
        return Ok(Format::Png);
    }
    if has((0, b"\xff\xd8\xff")) {
        return Ok(Format::Jpeg);
    }
    if has((0, b"RIFF")) && has((8, b"WEBP")) {
        return Ok(Format::Webp);
    }
    if bytes.trim_ascii_start().starts_with(b"<") {
        return Err("this is not a picture, but HTML or XML; give the address of the picture itself".to_owned());
    }
    let other = OTHERS.iter().find(|(at, start, _)| has((*at, start))).map_or("something else", |(_, _, name)| name);
    Err(format!("the picture is not a PNG, JPEG or WebP, but {other}; convert it"))
}

/// What people call a format.
fn name(format: Format) -> &'static str {
    match format {
        Format::Png => "PNG",
        Format::Jpeg => "JPEG",
        Format::Webp => "WebP",
    }
}

/// A picture that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `3 * width * height` bytes, row by row from the top.
    pub rgb: Vec<u8>,
}

/// How many pixels a file has, from its first bytes.
///
/// # Errors
/// Why it cannot be read, in words for whoever sent it.
pub(crate) fn size(bytes: &[u8]) -> Result<u64, String> {
    let format = checked(bytes)?;
    let (width, height) = open(bytes, format).map_err(|error| unreadable(format, &error))?.dimensions();
    within(width, height)
}

/// Reads a file. Takes up to a second: call it off the async threads.
///
/// # Errors
/// Why it cannot be read, in words for whoever sent it.
pub fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    let format = checked(bytes)?;
    if format == Format::Jpeg && !jpeg_ends(bytes) {
        return Err("the JPEG ends too early; send all of it".to_owned());
    }
    let read = || -> ImageResult<Result<Pixels, String>> {
        let mut decoder = open(bytes, format)?;
        let (width, height) = decoder.dimensions();
        if let Err(why) = within(width, height) {
            return Ok(Err(why));
        }
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::ImageRgb8(opaque(DynamicImage::from_decoder(decoder)?));
        image.apply_orientation(orientation);
        let rgb = image.into_rgb8();
        Ok(Ok(Pixels { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw() }))
    };
    read().map_err(|error| unreadable(format, &error))?
}

/// The format of a file that is not too large.
fn checked(bytes: &[u8]) -> Result<Format, String> {
    if bytes.len() > MAX_PICTURE { Err(too_large()) } else { format_of(bytes) }
}

/// Reads the header.
fn open(bytes: &[u8], format: Format) -> ImageResult<impl ImageDecoder> {
    let format = match format {
        Format::Png => ImageFormat::Png,
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Webp => ImageFormat::WebP,
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BESIDE);
    reader.limits(limits);
    reader.into_decoder()
}

/// The number of pixels, if a picture may have them.
fn within(width: u32, height: u32) -> Result<u64, String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err("the picture has no pixels".to_owned());
    }
    if pixels > MAX_PIXELS || width.max(height) > MAX_SIDE {
        return Err(format!(
            "the picture has {width}x{height} pixels, more than the maximum of {} million or of {MAX_SIDE} along a side; \
             scale it down",
            MAX_PIXELS / 1_000_000
        ));
    }
    Ok(pixels)
}

fn unreadable(format: Format, error: &dyn std::error::Error) -> String {
    let words = error.to_string();
    format!("the {} is damaged, or ends too early: {}", name(format), shown_up_to(&words, MAX_WORDS))
}

/// A picture over white.
fn opaque(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let (width, height, rgba) = (image.width(), image.height(), image.into_rgba8());
    let over = |color: u8, alpha: u8| {
        let (color, alpha) = (u32::from(color), u32::from(alpha));
        ((color * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for &[red, green, blue, alpha] in rgba.as_raw().as_chunks().0 {
        rgb.extend([red, green, blue].map(|color| over(color, alpha)));
    }
    RgbImage::from_raw(width, height, rgb).unwrap_or_default()
}

/// Whether a JPEG has its end. The decoder fills up what is missing with grey.
fn jpeg_ends(bytes: &[u8]) -> bool {
    // Segments until the first scan: a thumbnail in one of them has an end of its own.
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        match marker {
            // A byte to fill up with.
            0xff => at += 1,
            0xda => return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    false
}
