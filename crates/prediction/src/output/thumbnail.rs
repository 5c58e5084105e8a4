//! Small copies of pictures, for lists of them.

use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};

use super::read::read;

/// The greatest width of a small copy in pixels.
pub const MAX_THUMBNAIL: u32 = 2048;
/// The least.
const MIN_THUMBNAIL: u32 = 64;
/// The quality of its JPEG.
const QUALITY: u8 = 80;

/// The width that is made where one is asked for: the next power of two from 64 on, so that a picture has few copies.
/// `None` for 0 and above [`MAX_THUMBNAIL`].
pub fn thumbnail_width(wanted: u32) -> Option<u32> {
    (1..=MAX_THUMBNAIL).contains(&wanted).then(|| wanted.next_power_of_two().max(MIN_THUMBNAIL))
}

/// A JPEG of a picture in a width in pixels, or in its own if that is less. Takes tens of milliseconds.
///
/// # Errors
/// Why the picture cannot be read, in words that follow its name.
pub fn thumbnail(picture: &[u8], width: u32) -> Result<Vec<u8>, String> {
    let picture = read(picture)?;
    let whole = RgbImage::from_raw(picture.width, picture.height, picture.rgb).ok_or("has no pixels")?;
    let (width, height) = size((picture.width, picture.height), width);
    let small = if width < whole.width() { imageops::thumbnail(&whole, width, height) } else { whole };
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode_image(&small)
        .map_err(|error| format!("cannot be encoded: {error}"))?;
    Ok(jpeg)
}

/// The size of a copy of a width, or of one as large as the picture.
fn size((whole_width, whole_height): (u32, u32), width: u32) -> (u32, u32) {
    if width >= whole_width {
        return (whole_width, whole_height);
    }
    let (width, whole) = (u64::from(width), u64::from(whole_width));
    let height = (u64::from(whole_height) * width + whole / 2) / whole;
    (width as u32, height.max(1) as u32)
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;
    use crate::output::picture;

    #[test]
    fn widths_are_few() {
        let widths: Vec<Option<u32>> = [0, 1, 64, 65, 512, 2048, 2049, u32::MAX].map(thumbnail_width).to_vec();
        assert_eq!(widths, [None, Some(64), Some(64), Some(128), Some(512), Some(2048), None, None]);
    }

    #[test]
    fn a_copy_is_the_picture_in_small() {
        // Red from left to right, green from top to bottom.
        let rgb = |x: u32, y: u32| [(x / 8) as u8, (y / 2) as u8, 200];
        let whole: Vec<u8> = (0..512).flat_map(|y| (0..2048).flat_map(move |x| rgb(x, y))).collect();
        let png = picture(&whole, 2048, 512, None).unwrap();
        for (wanted, size) in [(512, (512, 128)), (64, (64, 16)), (4096, (2048, 512))] {
            let jpeg = thumbnail(&png, wanted).unwrap();
            let small = image::load_from_memory_with_format(&jpeg, ImageFormat::Jpeg).unwrap().to_rgb8();
            assert_eq!(small.dimensions(), size);
            let scale = 2048 / size.0;
            for (x, y, pixel) in small.enumerate_pixels() {
                let expected = rgb(x * scale + scale / 2, y * scale + scale / 2);
                let close = std::iter::zip(pixel.0, expected).all(|(is, expected)| is.abs_diff(expected) < 8);
                assert!(close, "{x}, {y}: {pixel:?} for {expected:?}");
            }
        }
    }

    #[test]
    fn no_copy_is_without_pixels() {
        let png = picture(&vec![9; 3 * 4096 * 2], 4096, 2, None).unwrap();
        let jpeg = thumbnail(&png, 64).unwrap();
        assert_eq!(image::load_from_memory(&jpeg).unwrap().to_rgb8().dimensions(), (64, 1));
        assert_eq!(thumbnail(b"a text that is long enough", 64).unwrap_err(), "is not a PNG, JPEG or WebP");
    }
}
