//! JPEG with what PNGs have as texts: Exif, XMP, and comments with the input, which may be in several segments.

use std::io;

use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder as _};

use super::exif;
use super::metadata::{INPUT, Metadata};
use super::pixels::{Pixels, fitting};

/// The most bytes that a segment holds besides its length.
const MAX_SEGMENT: usize = 0xffff - 2;
/// What the segments of Exif and XMP begin with.
const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// Markers: of application data, of a comment, of the pixels, and of the end.
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const COM: u8 = 0xfe;
const SOS: u8 = 0xda;
const EOI: [u8; 2] = [0xff, 0xd9];

/// Encodes RGB whose length fits the size.
pub(super) fn encode(
    rgb: &[u8],
    (width, height): (u32, u32),
    quality: u8,
    metadata: Option<&Metadata<'_>>,
) -> io::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(rgb.len() / 8);
    JpegEncoder::new_with_quality(&mut plain, quality)
        .encode(rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    let Some(metadata) = metadata else { return Ok(plain) };
    let mut texts = Vec::new();
    let exif = exif::comment(&metadata.parameters(), MAX_SEGMENT - EXIF.len());
    segment(&mut texts, APP1, &[EXIF, &exif]);
    let xmp = metadata.xmp_within(MAX_SEGMENT - XMP.len());
    segment(&mut texts, APP1, &[XMP, xmp.as_bytes()]);
    let (name, input) = (format!("{INPUT}\0"), serde_json::to_string(metadata.input)?);
    for part in input.as_bytes().chunks(MAX_SEGMENT - name.len()) {
        segment(&mut texts, COM, &[name.as_bytes(), part]);
    }
    // Behind the beginning and the first segment, which is that of JFIF.
    let at = segments(&plain).next().filter(|(marker, ..)| *marker == APP0).map_or(2, |(_, _, end)| end);
    drop(plain.splice(at..at, texts));
    Ok(plain)
}

/// Adds a segment.
fn segment(to: &mut Vec<u8>, marker: u8, parts: &[&[u8]]) {
    let length = 2 + parts.iter().map(|part| part.len()).sum::<usize>();
    to.extend([0xff, marker]);
    to.extend((length as u16).to_be_bytes());
    for part in parts {
        to.extend(*part);
    }
}

/// The segments before the pixels, and the one that begins these: marker, contents, and where it ends.
fn segments(jpeg: &[u8]) -> impl Iterator<Item = (u8, &[u8], usize)> {
    let mut at = 2;
    let mut over = false;
    std::iter::from_fn(move || {
        // Any number of these may come before a marker.
        while jpeg.get(at..at + 2)? == [0xff, 0xff] {
            at += 1;
        }
        let &[0xff, marker, high, low] = jpeg.get(at..at + 4)? else { return None };
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        let contents = jpeg.get(at + 4..end).filter(|_| !over)?;
        (at, over) = (end, marker == SOS);
        Some((marker, contents, end))
    })
}

/// Reads a JPEG, and the input that it was made from.
pub(super) fn read(bytes: &[u8]) -> Result<(Pixels, Option<String>), String> {
    let wrong = |error: image::ImageError| format!("is a damaged JPEG: {error}");
    let decoder = JpegDecoder::new(io::Cursor::new(bytes)).map_err(wrong)?;
    let size = fitting(decoder.dimensions())?;
    let pixels = segments(bytes).find(|(marker, ..)| *marker == SOS).and_then(|(_, _, end)| bytes.get(end..));
    // The decoder makes grey of what is missing.
    if !pixels.is_some_and(|pixels| pixels.windows(2).any(|pair| pair == EOI)) {
        return Err("is a JPEG that ends too early".to_owned());
    }
    let rgb = DynamicImage::from_decoder(decoder).map_err(wrong)?.into_rgb8().into_raw();
    let name = format!("{INPUT}\0");
    let parts = segments(bytes).filter(|(marker, ..)| *marker == COM);
    let input: Vec<u8> =
        parts.filter_map(|(_, part, _)| part.strip_prefix(name.as_bytes())).flatten().copied().collect();
    Ok((Pixels { size, rgb }, String::from_utf8(input).ok().filter(|input| !input.is_empty())))
}
