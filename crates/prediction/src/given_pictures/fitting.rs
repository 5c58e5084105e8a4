//! A given picture where an API promises sizes that the model cannot draw, of which the middle is kept, or has pictures
//! that fill what is drawn.

use geometry::{Geometry, Misplaced};
use image::RgbImage;
use image::imageops::{self, FilterType};

use super::decode::Pixels;

/// How a picture that is given as `image` is laid into the panorama. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fitting {
    /// It fills what is drawn, whatever its shape.
    pub fill: Option<Fill>,
    /// The strength with which a picture that leaves nothing to draw is drawn again, if the request says none.
    pub redraw: Option<f64>,
}

/// How a picture fills another shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// It is stretched.
    Stretch,
    /// What is too much is cut off its sides.
    Cut,
}

/// A picture as it is laid into a panorama of which only the middle is kept, which has the size of `crop`: it is
/// scaled to that, and its outermost pixels are continued around it. `None` if it stays as it is.
///
/// # Errors
/// If it does not fit into what is kept, where `left` is its column.
pub(crate) fn fitted(
    pixels: Pixels,
    fill: Option<Fill>,
    geometry: Geometry,
    (canvas, crop): ((u32, u32), Option<(u32, u32)>),
    left: Option<u32>,
) -> Result<Option<Pixels>, Misplaced> {
    let size = (pixels.width, pixels.height);
    let kept = crop.unwrap_or(canvas);
    let inner = match (fill, crop) {
        (None, None) => return Ok(None),
        (Some(_), _) => kept,
        (None, Some(_)) => {
            let placed = geometry.place(size, kept, left)?;
            let is_whole = kept.0 - placed.width < geometry.vae_factor.max(1);
            if is_whole { kept } else { (placed.scaled, kept.1) }
        }
    };
    let outer = (if inner.0 == kept.0 { canvas.0 } else { inner.0 }, canvas.1);
    if size == outer {
        return Ok(None);
    }
    let Some(mut picture) = RgbImage::from_raw(size.0, size.1, pixels.rgb) else { return Ok(None) };
    if fill == Some(Fill::Cut) {
        let (x, y, width, height) = middle(size, inner);
        picture = imageops::crop_imm(&picture, x, y, width, height).to_image();
    }
    if picture.dimensions() != inner {
        picture = imageops::resize(&picture, inner.0, inner.1, FilterType::CatmullRom);
    }
    Ok(Some(continued(&picture, outer)))
}

/// The largest part of the shape of `wanted` in the middle of a size: its column and row, width and height.
fn middle((width, height): (u32, u32), wanted: (u32, u32)) -> (u32, u32, u32, u32) {
    let [w, h, a, b] = [width, height, wanted.0, wanted.1].map(u64::from);
    let (part_width, part_height) = if w * b > h * a { (h * a / b, h) } else { (w, w * b / a) };
    let (part_width, part_height) = (part_width.max(1) as u32, part_height.max(1) as u32);
    ((width - part_width) / 2, (height - part_height) / 2, part_width, part_height)
}

/// A picture in the middle of a larger one, its outermost pixels continued.
fn continued(picture: &RgbImage, (width, height): (u32, u32)) -> Pixels {
    let (inner_width, inner_height) = picture.dimensions();
    let (left, top) = ((width - inner_width) / 2, (height - inner_height) / 2);
    let inside = |at: u32, before: u32, length: u32| at.saturating_sub(before).min(length - 1);
    let around = RgbImage::from_fn(width, height, |x, y| {
        *picture.get_pixel(inside(x, left, inner_width), inside(y, top, inner_height))
    });
    Pixels { width, height, rgb: around.into_raw() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SD2: Geometry = Geometry { window: 64, vae_factor: 8 };

    /// A picture whose red is its column and whose green is its row, in shares of 255.
    fn ramp(width: u32, height: u32) -> Pixels {
        let share = |at: u32, length: u32| ((2 * at + 1) * 255 / (2 * length)) as u8;
        let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb([share(x, width), share(y, height), 0]));
        Pixels { width, height, rgb: picture.into_raw() }
    }

    /// Size and the pixel of a place.
    fn fit(
        size: (u32, u32),
        fill: Option<Fill>,
        drawn: ((u32, u32), Option<(u32, u32)>),
        at: (u32, u32),
    ) -> ((u32, u32), [u8; 3]) {
        let fitted = fitted(ramp(size.0, size.1), fill, SD2, drawn, None).unwrap().unwrap();
        let pixel = 3 * (at.1 * fitted.width + at.0) as usize;
        ((fitted.width, fitted.height), fitted.rgb[pixel..pixel + 3].try_into().unwrap())
    }

    fn near(is: [u8; 3], wanted: [u8; 3]) -> bool {
        std::iter::zip(is, wanted).all(|(is, wanted)| is.abs_diff(wanted) <= 3)
    }

    #[test]
    fn a_picture_of_the_kept_size_lies_where_it_is_kept() {
        let drawn = ((1024, 640), Some((1000, 600)));
        // What is kept begins at column 12 and row 20.
        for (at, wanted) in [((12, 20), [0, 0, 0]), ((0, 0), [0, 0, 0]), ((511, 319), [127, 127, 0])] {
            let (size, pixel) = fit((1000, 600), None, drawn, at);
            assert!(size == (1024, 640) && near(pixel, wanted), "{at:?}: {pixel:?}");
        }
        let (size, pixel) = fit((1000, 600), None, drawn, (1023, 639));
        assert!(size == (1024, 640) && near(pixel, [255, 255, 0]), "{pixel:?}");
    }

    #[test]
    fn a_narrow_picture_is_brought_to_the_height_that_is_kept() {
        let drawn = ((2048, 640), Some((2000, 600)));
        let (size, top) = fit((300, 200), None, drawn, (450, 20));
        assert_eq!(size, (900, 640), "it is 900 pixels wide at a height of 600");
        assert!(near(top, [127, 0, 0]), "{top:?}");
    }

    #[test]
    fn shapes_are_filled() {
        let drawn = ((1024, 512), None);
        let (size, left) = fit((512, 512), Some(Fill::Stretch), drawn, (0, 256));
        assert!(size == (1024, 512) && near(left, [0, 127, 0]), "{left:?}");
        let (size, top) = fit((512, 512), Some(Fill::Cut), drawn, (512, 0));
        assert!(size == (1024, 512) && near(top, [127, 64, 0]), "{top:?}");
        assert_eq!(middle((100, 10), (1, 1)), (45, 0, 10, 10));
        assert_eq!(middle((1, 1000), (1000, 1)), (0, 499, 1, 1));
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let none = |size: (u32, u32), fill, drawn| fitted(ramp(size.0, size.1), fill, SD2, drawn, None).unwrap();
        assert_eq!(none((300, 200), None, ((2048, 512), None)), None);
        assert_eq!(none((1024, 512), Some(Fill::Stretch), ((1024, 512), None)), None);
        let wide = fitted(ramp(1100, 600), None, SD2, ((1024, 640), Some((1000, 600))), None);
        assert!(matches!(wide, Err(Misplaced::Wide { scaled: 1100, canvas: (1000, 600) })), "{wide:?}");
    }
}
