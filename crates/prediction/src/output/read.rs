//! From a picture back to RGB, and what its text says of how it was made, if this program made it.

use std::io::Cursor;

use png::{ColorType, Decoder, DecodingError, Transformations};
use protocol::Format;
use serde::Deserialize;

use super::format::format;
use super::metadata::INPUT;
use super::pixels::{Pixels, fitting};
use super::{jpeg, webp};

/// A picture that was read.
#[derive(Debug)]
pub struct Read {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `3 * width * height` bytes, row by row from the top. What was transparent is opaque.
    pub rgb: Vec<u8>,
    /// What of its input says where its windows were.
    pub made: Option<Made>,
    /// The JSON of its input.
    pub input: Option<String>,
}

/// What of an input says where windows were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Made {
    /// Width in pixels that was asked for.
    pub width: u32,
    /// Height in pixels that was asked for.
    pub height: u32,
    /// Distance between neighbouring windows, in latents.
    pub stride: u32,
    /// Whether windows wrapped from the right edge to the left one.
    pub loop_closure: bool,
    /// Whether it is a ring of windows.
    #[serde(default)]
    pub seamless: bool,
}

/// Reads a PNG, JPEG or WebP of any colour type and depth; of an animation, the first picture.
///
/// # Errors
/// Why it cannot be read, in words that follow the name of the file.
pub fn read(bytes: &[u8]) -> Result<Read, String> {
    let (Pixels { size: (width, height), rgb }, input) = match format(bytes) {
        Format::Png => png(bytes)?,
        Format::Jpeg => jpeg::read(bytes)?,
        Format::Webp => webp::read(bytes)?,
    };
    let made = input.as_deref().and_then(|input| serde_json::from_str(input).ok());
    Ok(Read { width, height, rgb, made, input })
}

/// Reads a PNG, and the input that it was made from.
fn png(bytes: &[u8]) -> Result<(Pixels, Option<String>), String> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let wrong = |error: DecodingError| match error {
        DecodingError::Format(_) if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") => "is not a PNG, JPEG or WebP".to_owned(),
        DecodingError::IoError(_) => "is a PNG that ends too early".to_owned(),
        error => format!("is a damaged PNG: {error}"),
    };
    let size = fitting(decoder.read_header_info().map_err(wrong)?.size())?;
    let mut reader = decoder.read_info().map_err(wrong)?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("is too large")?];
    let (color, _) = reader.output_color_type();
    reader.next_frame(&mut pixels).map_err(wrong)?;
    // Some programs write texts after the pixels.
    let _ = reader.finish();
    let rgb = match color {
        ColorType::Rgb => pixels,
        ColorType::Rgba => pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        ColorType::Grayscale => pixels.into_iter().flat_map(|grey| [grey; 3]).collect(),
        ColorType::GrayscaleAlpha => pixels.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        ColorType::Indexed => return Err("has a palette that cannot be read".to_owned()),
    };
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == INPUT);
    let utf8 = info.utf8_text.iter().find(|chunk| chunk.keyword == INPUT);
    let input = latin.map(|chunk| chunk.text.clone()).or_else(|| utf8?.get_text().ok());
    Ok((Pixels { size, rgb }, input))
}

#[cfg(test)]
mod tests {
    use png::BitDepth;
    use serde_json::json;

    use super::*;
    use crate::output::{Metadata, picture};

    fn encoded(color: ColorType, depth: BitDepth, (width, height): (u32, u32), pixels: &[u8]) -> Vec<u8> {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![1, 2, 3, 40, 50, 60]);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(pixels).unwrap();
        writer.finish().unwrap();
        png
    }

    #[test]
    fn what_this_program_wrote_is_read() {
        for prompt in ["a lake", "日本 🏔"] {
            let seamless = !prompt.is_ascii();
            let json = json!({"prompt": prompt, "width": 1024, "stride": 32, "seamless": seamless});
            let input = crate::input::parse(&json, None).unwrap().input;
            let rgb: Vec<u8> = (0..3 * 1024 * 512).map(|i| (i * 7 % 256) as u8).collect();
            let png = picture(&rgb, 1024, 512, Some(&Metadata { input: &input, model: None })).unwrap();
            let read = read(&png).unwrap();
            assert_eq!((read.width, read.height), (1024, 512));
            assert!(read.rgb == rgb);
            assert_eq!(read.made, Some(Made { width: 1024, height: 512, stride: 32, loop_closure: false, seamless }));
        }
    }

    #[test]
    fn every_kind_of_png_is_rgb() {
        for (color, depth, pixels, expected) in [
            (ColorType::Rgb, BitDepth::Eight, vec![1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
            (ColorType::Rgba, BitDepth::Eight, vec![1, 2, 3, 0, 4, 5, 6, 255], [1, 2, 3, 4, 5, 6]),
            (ColorType::Grayscale, BitDepth::Eight, vec![1, 4], [1, 1, 1, 4, 4, 4]),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, vec![1, 9, 4, 9], [1, 1, 1, 4, 4, 4]),
            (ColorType::Grayscale, BitDepth::One, vec![0b0100_0000], [0, 0, 0, 255, 255, 255]),
            (ColorType::Grayscale, BitDepth::Sixteen, vec![1, 200, 4, 0], [1, 1, 1, 4, 4, 4]),
            (ColorType::Indexed, BitDepth::One, vec![0b0100_0000], [1, 2, 3, 40, 50, 60]),
        ] {
            let read = read(&encoded(color, depth, (2, 1), &pixels)).unwrap();
            assert_eq!((read.width, read.height, read.made), (2, 1, None));
            assert_eq!(read.rgb, expected, "{color:?} {depth:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let png = picture(&[7; 3 * 64 * 64], 64, 64, None).unwrap();
        let mut huge = png.clone();
        huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        // The checksum of the header.
        let crc = !huge[12..29].iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
        });
        huge[29..33].copy_from_slice(&crc.to_be_bytes());
        for (bytes, why) in [
            (&b"\xff\xd8\xff\xe0 a jpeg"[..], "is a damaged JPEG"),
            (b"RIFF\x04\0\0\0WEBP", "is a WebP that ends too early"),
            (b"a text that is long enough", "is not a PNG, JPEG or WebP"),
            (b"", "ends too early"),
            (&png[..60], "ends too early"),
            (&huge, "has 65536x65536 pixels, more than"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let mut damaged = png;
        damaged[50] ^= 0x55;
        let error = read(&damaged).unwrap_err();
        assert!(error.starts_with("is a damaged PNG"), "{error}");
    }
}
