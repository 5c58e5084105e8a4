//! Where a picture that becomes part of a panorama lies in it, and in which steps it is kept.
//!
//! The picture is brought to the height of the panorama. What is beyond a whole number of latents across is cut off its
//! sides; so it lies on the grid of latents, and one that has the height already keeps its pixels.

use std::fmt::{self, Display, Formatter};

use crate::sizes::Geometry;

/// A picture at its place, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its width at the height of the panorama.
    pub scaled: u32,
    /// How many columns of that are cut off at the left.
    pub cut: u32,
    /// How many columns are left, a multiple of those of a latent.
    pub width: u32,
    /// The column of the panorama at which it begins, likewise.
    pub left: u32,
}

/// Why a picture has no place in a panorama.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misplaced {
    /// At the height of the panorama it is less wide than a latent.
    Narrow {
        /// Its size.
        size: (u32, u32),
    },
    /// At the height of the panorama it is wider than that.
    Wide {
        /// Its width there.
        scaled: u64,
        /// The size of the panorama.
        canvas: (u32, u32),
    },
    /// It would go past the right end.
    Beyond {
        /// Where it should begin.
        left: u32,
        /// Where it may begin at the latest.
        last: u32,
    },
}

impl Geometry {
    /// The place of a picture of a size in a panorama, both as width and height in pixels. It begins at the latent
    /// nearest to `left`, or lies in the middle.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn place(self, size: (u32, u32), canvas: (u32, u32), left: Option<u32>) -> Result<Placed, Misplaced> {
        let factor = u64::from(self.vae_factor.max(1));
        let (width, height) = (u64::from(size.0), u64::from(size.1).max(1));
        let scaled = (2 * width * u64::from(canvas.1) + height) / (2 * height);
        let kept = scaled / factor * factor;
        if kept == 0 {
            return Err(Misplaced::Narrow { size });
        }
        let Some(room) = u64::from(canvas.0).checked_sub(kept) else {
            return Err(Misplaced::Wide { scaled, canvas });
        };
        let begins = match left {
            Some(left) => (u64::from(left) + factor / 2) / factor * factor,
            None => room / 2 / factor * factor,
        };
        if begins > room {
            return Err(Misplaced::Beyond { left: left.unwrap_or(0), last: (room / factor * factor) as u32 });
        }
        // No more than the width of the panorama, and a latent.
        let [scaled, cut, width, left] = [scaled, (scaled - kept) / 2, kept, begins].map(|length| length as u32);
        Ok(Placed { scaled, cut, width, left })
    }
}

impl std::error::Error for Misplaced {}

impl Misplaced {
    /// The input to change.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Narrow { .. } | Self::Wide { .. } => "image",
            Self::Beyond { .. } => "image_left",
        }
    }
}

/// The rest of a sentence that begins with [`Misplaced::field`].
impl Display for Misplaced {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Narrow { size: (width, height) } => {
                write!(
                    f,
                    "is {width}x{height}, too narrow to be seen at the `height` of the panorama; cut off some of its height"
                )
            }
            Self::Wide { scaled, canvas: (width, height) } => write!(
                f,
                "is {scaled} pixels wide at a `height` of {height}, and the panorama only {width}; choose a `width` of at \
                 least {scaled}, a smaller `height`, or cut off some of its width"
            ),
            Self::Beyond { left, last } => {
                write!(
                    f,
                    "is {left}, at which `image` would go past the right end; {last} is the most for this `width`"
                )
            }
        }
    }
}

/// In how many of `steps` steps, from the first, a picture is kept of which `strength` says how far it is redrawn: 0
/// keeps it in all, 1 in none. As many steps are free as diffusers' image-to-image pipelines take.
pub fn kept_steps(steps: u32, strength: f64) -> u32 {
    steps - ((f64::from(steps) * strength) as u32).min(steps)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SD2: Geometry = Geometry { window: 64, vae_factor: 8 };

    fn place(size: (u32, u32), left: Option<u32>) -> Result<Placed, Misplaced> {
        SD2.place(size, (2048, 512), left)
    }

    #[test]
    fn a_picture_is_brought_to_the_height_of_the_panorama() {
        let whole = Placed { scaled: 768, cut: 0, width: 768, left: 640 };
        assert_eq!(place((768, 512), None), Ok(whole));
        assert_eq!(place((3000, 2000), None), Ok(whole));
        assert_eq!(place((768, 512), Some(0)), Ok(Placed { left: 0, ..whole }));
        assert_eq!(place((768, 512), Some(11)), Ok(Placed { left: 8, ..whole }));
        assert_eq!(place((768, 512), Some(12)), Ok(Placed { left: 16, ..whole }));
        assert_eq!(place((773, 512), None), Ok(Placed { scaled: 773, cut: 2, width: 768, left: 640 }));
        assert_eq!(place((1024, 256), None), Ok(Placed { scaled: 2048, cut: 0, width: 2048, left: 0 }));
        assert_eq!(place((2055, 512), None), Ok(Placed { scaled: 2055, cut: 3, width: 2048, left: 0 }));
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_would() {
        let says =
            |placed: Result<Placed, Misplaced>| placed.map_err(|why| format!("`{}` {why}", why.field())).unwrap_err();
        let wide = says(place((2056, 512), None));
        assert!(wide.starts_with("`image` is 2056") && wide.contains("`width` of at least 2056"), "{wide}");
        let beyond = says(place((768, 512), Some(1300)));
        assert!(beyond.starts_with("`image_left` is 1300") && beyond.contains("1280 is the most"), "{beyond}");
        assert!(place((768, 512), Some(1283)).is_ok(), "1280 is the nearest latent");
        assert!(says(place((1, 512), None)).contains("1x512"));
        assert!(place((0, 0), None).is_err());
    }

    #[test]
    fn strength_frees_the_last_steps() {
        for (strength, kept) in [(0.0, 50), (0.019, 50), (0.02, 49), (0.3, 35), (1.0, 0), (7.0, 0), (-1.0, 50)] {
            assert_eq!(kept_steps(50, strength), kept, "{strength}");
        }
    }

    proptest! {
        #[test]
        fn a_place_is_inside_and_on_the_grid(
            width in 0_u32..u32::MAX, height in 0_u32..u32::MAX, left in prop::option::of(0_u32..u32::MAX),
            columns in 1_u32..64, factor in prop::sample::select(vec![1_u32, 4, 8]),
        ) {
            let canvas = (factor * columns * 8, factor * 64);
            let geometry = Geometry { window: 64, vae_factor: factor };
            if let Ok(placed) = geometry.place((width, height), canvas, left) {
                prop_assert!(placed.width > 0 && placed.left + placed.width <= canvas.0);
                prop_assert!(placed.width % factor == 0 && placed.left % factor == 0);
                prop_assert!(placed.cut + placed.width <= placed.scaled && placed.scaled - placed.width < factor);
            }
        }
    }
}
