//! What a request wants of its pictures besides what its input says: a size that the model cannot draw, and a URL.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What is wanted. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Width and height in pixels of what is kept of a picture: its middle.
    pub crop: Option<(u32, u32)>,
    /// The output is a URL of this server where it would be a data URI.
    pub named: bool,
}

impl Wanted {
    /// Whether nothing is wanted.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The middle of `3 * width * height` bytes of RGB, and its size. What is smaller, or has other sizes than it says,
    /// stays as it is.
    pub(crate) fn cut(self, rgb: &[u8], (width, height): (u32, u32)) -> (Cow<'_, [u8]>, (u32, u32)) {
        let whole = (width, height);
        let fits = rgb.len() == 3 * width as usize * height as usize;
        let size = self.crop.map(|(w, h)| (w.min(width), h.min(height)));
        let Some(size) = size.filter(|size| *size != whole && fits) else { return (rgb.into(), whole) };
        let (left, top) = ((width - size.0) as usize / 2, (height - size.1) as usize / 2);
        let rows = rgb.chunks_exact(3 * width as usize).skip(top).take(size.1 as usize);
        let middle: Vec<u8> = rows.flat_map(|row| &row[3 * left..3 * (left + size.0 as usize)]).copied().collect();
        (middle.into(), size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_kept() {
        let rgb: Vec<u8> = (0..5 * 4).flat_map(|pixel| [pixel; 3]).collect();
        let cut = |crop| {
            let (rgb, size) = Wanted { crop, named: false }.cut(&rgb, (5, 4));
            (rgb.chunks(3).map(|pixel| pixel[0]).collect::<Vec<u8>>(), size)
        };
        assert_eq!(cut(Some((3, 2))), (vec![6, 7, 8, 11, 12, 13], (3, 2)));
        assert_eq!(cut(Some((4, 4))).1, (4, 4));
        for whole in [None, Some((5, 4)), Some((9, 9))] {
            assert_eq!(cut(whole), ((0..20).collect(), (5, 4)), "{whole:?}");
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_written() {
        let wanted = Wanted { crop: Some((1000, 600)), named: true };
        let text = serde_json::to_string(&wanted).unwrap();
        assert_eq!(serde_json::from_str::<Wanted>(&text).unwrap(), wanted);
        assert!(serde_json::from_str::<Wanted>("{}").unwrap().is_nothing() && !wanted.is_nothing());
    }
}
