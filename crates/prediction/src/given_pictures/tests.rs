//! What is read of all kinds of files. Those of `tests/pictures` show four quarters: red and green above blue and
//! white.

use png::{BitDepth, ColorType, Encoder};
use serde_json::json;

use super::decode::MAX_PIXELS;
use super::*;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/pictures/", $name))
    };
}

/// The colours of the quarters.
const QUARTERS: [[u8; 3]; 4] = [[220, 30, 30], [30, 200, 30], [30, 30, 220], [240, 240, 240]];

/// A PNG of 4x2 pixels.
fn png(color: ColorType, depth: BitDepth, data: &[u8], more: impl FnOnce(&mut Encoder<'_, &mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 4, 2);
    encoder.set_color(color);
    encoder.set_depth(depth);
    more(&mut encoder);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

fn assert_quarters(name: &str, bytes: &[u8], tolerance: u8) {
    let Pixels { width, height, rgb } = decode(bytes).unwrap_or_else(|why| panic!("{name}: {why}"));
    assert_eq!((width, height), (48, 32), "{name}");
    assert_eq!(size(bytes), Ok(48 * 32), "{name}");
    for (quarter, wanted) in QUARTERS.into_iter().enumerate() {
        let (x, y) = (12 + 24 * (quarter % 2), 8 + 16 * (quarter / 2));
        let found = &rgb[3 * (48 * y + x)..][..3];
        let near = std::iter::zip(found, wanted).all(|(found, wanted)| found.abs_diff(wanted) <= tolerance);
        assert!(near, "{name}: {found:?} is not {wanted:?}");
    }
}

#[test]
fn pictures_of_three_formats_are_read_and_turned() {
    assert_quarters("PNG", file!("quarters.png"), 0);
    assert_quarters("JPEG", file!("quarters.jpg"), 3);
    assert_quarters("progressive JPEG", file!("progressive.jpg"), 3);
    assert_quarters("WebP", file!("quarters.webp"), 0);
    assert_quarters("CMYK", file!("cmyk.jpg"), 6);
    assert_quarters("JPEG on its side", file!("turned.jpg"), 3);
}

#[test]
fn all_kinds_of_png_become_rgb() {
    let colors = |bytes: &[u8]| decode(bytes).unwrap().rgb.chunks(3).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let deep: Vec<u8> = (0..4 * 2 * 3).flat_map(|n: u8| [10 * n, 0]).collect();
    let read = decode(&png(ColorType::Rgb, BitDepth::Sixteen, &deep, |_| {})).unwrap();
    assert!(std::iter::zip(&read.rgb, deep.iter().step_by(2)).all(|(found, wanted)| found.abs_diff(*wanted) <= 1));
    let grey = colors(&png(ColorType::Grayscale, BitDepth::Eight, &[7; 8], |_| {}));
    assert_eq!(grey, vec![vec![7; 3]; 8]);
    let bits = colors(&png(ColorType::Grayscale, BitDepth::One, &[0b1010_0000, 0b0101_0000], |_| {}));
    assert_eq!((&bits[0], &bits[1], &bits[4]), (&vec![255; 3], &vec![0; 3], &vec![0; 3]));
    let palette = colors(&png(ColorType::Indexed, BitDepth::Eight, &[0, 1, 0, 1, 0, 1, 0, 1], |encoder| {
        encoder.set_palette(vec![9, 8, 7, 1, 2, 3]);
        encoder.set_trns(vec![255, 0]);
    }));
    assert_eq!((&palette[0], &palette[1]), (&vec![9, 8, 7], &vec![255; 3]), "what is transparent is white");
    let clear: Vec<u8> = (0..8).flat_map(|n| [0, 100, 200, if n < 4 { 0 } else { 127 }]).collect();
    let clear = colors(&png(ColorType::Rgba, BitDepth::Eight, &clear, |_| {}));
    assert_eq!((&clear[0], &clear[4]), (&vec![255; 3], &vec![128, 178, 228]));
    let hash: Vec<u8> = (0..8).flat_map(|_| [0, 0, 0, 0]).collect();
    let deep = colors(&png(ColorType::GrayscaleAlpha, BitDepth::Sixteen, &hash, |_| {}));
    assert_eq!(deep, vec![vec![255; 3]; 8]);
}

#[test]
fn an_animation_is_its_first_picture() {
    for (name, bytes) in [("WebP", &file!("moving.webp")[..]), ("PNG", file!("moving.png"))] {
        let Pixels { width, height, rgb } = decode(bytes).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!((width, height), (16, 16));
        assert!(rgb.chunks(3).all(|pixel| pixel == QUARTERS[0]), "{name}");
    }
}

#[test]
fn what_is_not_a_picture_is_named() {
    for (bytes, words) in [
        (&b""[..], "no bytes"),
        (b"  <!doctype html><html>", "HTML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "HTML or XML"),
        (b"{\"error\": 1}", "JSON"),
        (b"GIF89a", "a GIF"),
        (b"\0\0\0\x20ftypavif", "an AVIF"),
        (b"\0\0\0\x20ftypheic", "a HEIF"),
        (b"MM\0*", "a TIFF"),
        (b"BM", "a BMP"),
        (b"%PDF-1.7", "a PDF"),
        (b"hello", "something else"),
        (b"\x89PNG\r\n\x1a\n", "the PNG is damaged"),
        (b"\xff\xd8\xff\xe0", "the JPEG"),
        (b"RIFF\0\0\0\0WEBP", "the WebP is damaged"),
    ] {
        let why = decode(bytes).unwrap_err();
        assert!(why.contains(words) && why.len() < 400, "{why}");
    }
}

/// Whatever is missing at the end, it is an error, and never a panic.
#[test]
fn a_picture_that_ends_too_early_is_refused() {
    let with_thumbnail = {
        let (whole, thumbnail) = (file!("quarters.jpg"), file!("quarters.jpg"));
        let length = (thumbnail.len() as u16 + 2).to_be_bytes();
        [&whole[..2], &[0xff, 0xe1], &length, thumbnail, &whole[2..]].concat()
    };
    assert_quarters("with a thumbnail", &with_thumbnail, 3);
    for (name, bytes) in [
        ("PNG", &file!("quarters.png")[..]),
        ("JPEG", file!("quarters.jpg")),
        ("progressive JPEG", file!("progressive.jpg")),
        ("WebP", file!("quarters.webp")),
        ("JPEG with a thumbnail", &with_thumbnail),
    ] {
        for end in 0..bytes.len() {
            let read = decode(&bytes[..end]);
            // The last chunk of a PNG, and a byte to fill up with, have no pixels.
            assert!(read.is_err() || end + 12 >= bytes.len(), "{name}: {end} of {} bytes", bytes.len());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x55;
            let _ = decode(&damaged);
        }
    }
}

/// A few bytes that claim to be a large picture.
#[test]
fn bombs_are_refused_by_their_headers() {
    let claims = |width: u32, height: u32| {
        let mut bytes = file!("quarters.png").to_vec();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    assert_eq!(size(&claims(48, 32)), Ok(48 * 32));
    for (width, height) in [(10_000, 10_000), (65_535, 65_535), (i32::MAX as u32, i32::MAX as u32), (40_000, 1)] {
        for why in [size(&claims(width, height)).err(), decode(&claims(width, height)).err()] {
            let why = why.unwrap();
            assert!(why.contains("50 million") || why.contains("damaged"), "{width}x{height}: {why}");
        }
    }
    let mut jpeg = file!("quarters.jpg").to_vec();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    assert!(size(&jpeg).unwrap_err().contains("65535x65535") && decode(&jpeg).is_err());
    assert!(u64::from(u16::MAX).pow(2) > MAX_PIXELS);
}

/// The checksum of a PNG's chunk.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[test]
fn metadata_names_pictures_by_their_hashes() {
    assert_eq!(hash(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let given = json!({"prompt": "a", "image": "https://example.com/files/secret.png"});
    let input = crate::input::parse(&given, None).unwrap().input;
    let told = told(&input, &[("image".to_owned(), hash(b""))]);
    assert_eq!((told.image, told.anchor_image), (Some(hash(b"")), None));
    assert_eq!(super::told(&input, &[]).image, None);
}
