//! Which strides and sizes a model can draw, and what to say about others.
//!
//! Windows lie `stride` latents apart and must cover the panorama to its last column and row. A size is a multiple of
//! `vae_factor * stride`, so they do exactly when the stride divides the window.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;

/// The smallest stride, and the step from one to the next.
const STRIDE_STEP: u32 = 8;

/// The sizes of a model that the rules depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Side of a window, in latents.
    pub window: u32,
    /// Pixels per latent, along each axis.
    pub vae_factor: u32,
}

/// Stable Diffusion 2 base.
impl Default for Geometry {
    fn default() -> Self {
        Self { window: 64, vae_factor: 8 }
    }
}

/// A stride or size that a model cannot draw. The message names the ones that it can.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The stride is not one of [`Geometry::strides`].
    Stride {
        /// The value that was given.
        stride: i128,
        /// The model.
        geometry: Geometry,
    },
    /// The size is less than a window, or than the bounds allow.
    TooSmall {
        /// The value that was given, in pixels.
        size: i128,
        /// The lower bound, in pixels.
        least: u64,
        /// The smallest size that is valid with the stride, in pixels.
        minimum: u64,
    },
    /// Windows `stride` apart do not end at this size.
    NotAMultiple {
        /// The value that was given, in pixels.
        size: i128,
        /// Pixels per latent.
        vae_factor: u32,
        /// The stride, in latents.
        stride: u64,
        /// The nearest valid sizes within the bounds: none, one or two.
        nearest: Vec<u64>,
    },
    /// `loop_closure` needs a single row of windows.
    NotOneWindow {
        /// The height that was given, in pixels.
        height: i128,
        /// The side of a window, in pixels.
        window: u64,
    },
}

impl Geometry {
    /// Side of a window in pixels.
    pub fn window_pixels(self) -> u64 {
        u64::from(self.window) * u64::from(self.vae_factor)
    }

    /// The strides that cover every size that is a multiple of them: multiples of 8 below the window that divide it.
    pub fn strides(self) -> Vec<u32> {
        (STRIDE_STEP..self.window)
            .step_by(STRIDE_STEP as usize)
            .filter(|stride| self.window.is_multiple_of(*stride))
            .collect()
    }

    /// Checks a stride, in latents.
    ///
    /// # Errors
    /// If it is not one of [`Self::strides`].
    pub fn check_stride(self, stride: i128) -> Result<u64, Error> {
        let valid = self.strides().into_iter().find(|valid| i128::from(*valid) == stride);
        valid.map(u64::from).ok_or(Error::Stride { stride, geometry: self })
    }

    /// Checks a side of the picture, in pixels. Without a stride the smallest one counts, of which all others are
    /// multiples.
    ///
    /// # Errors
    /// If it is less than a window or not a multiple of `vae_factor * stride`.
    pub fn check_size(self, size: i128, stride: Option<u64>, bounds: &RangeInclusive<u64>) -> Result<(), Error> {
        let stride = stride.unwrap_or(u64::from(STRIDE_STEP)).max(1);
        let step = u64::from(self.vae_factor.max(1)) * stride;
        let least = self.window_pixels().max(*bounds.start());
        if size < i128::from(least) {
            return Err(Error::TooSmall { size, least, minimum: least.next_multiple_of(step) });
        }
        if size % i128::from(step) == 0 {
            return Ok(());
        }
        let below = size / i128::from(step) * i128::from(step);
        let nearest = [below, below + i128::from(step)]
            .into_iter()
            .filter_map(|near| u64::try_from(near).ok())
            .filter(|near| (least..=*bounds.end()).contains(near))
            .collect();
        Err(Error::NotAMultiple { size, vae_factor: self.vae_factor, stride, nearest })
    }

    /// Checks the height of a picture with `loop_closure`, in pixels.
    ///
    /// # Errors
    /// If it is not the height of one window.
    pub fn check_looped_height(self, height: i128) -> Result<(), Error> {
        let window = self.window_pixels();
        if height == i128::from(window) { Ok(()) } else { Err(Error::NotOneWindow { height, window }) }
    }
}

impl std::error::Error for Error {}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stride { stride, geometry } => {
                let window = geometry.window;
                if *stride < i128::from(STRIDE_STEP) {
                    write!(f, "{stride} is less than the minimum of {STRIDE_STEP}")?;
                } else if stride % i128::from(STRIDE_STEP) != 0 {
                    write!(f, "{stride} is not a multiple of {STRIDE_STEP}")?;
                } else if *stride >= i128::from(window) {
                    write!(f, "{stride} is not smaller than the window of {window}")?;
                } else {
                    write!(f, "{stride} leaves columns or rows uncovered: it does not divide the window of {window}")?;
                }
                match list(&geometry.strides()).as_slice() {
                    [] => f.write_str("; this model has no valid stride"),
                    [one] => write!(f, "; the only valid stride is {one}"),
                    [init @ .., last] => write!(f, "; valid strides are {} and {last}", init.join(", ")),
                }
            }
            Self::TooSmall { size, least, minimum } => {
                write!(f, "{size} is less than the window of {least} pixels; the minimum is {minimum}")
            }
            Self::NotAMultiple { size, vae_factor, stride, nearest } => {
                let step = u64::from(*vae_factor) * stride;
                write!(f, "{size} is not a multiple of {step} ({vae_factor} * stride {stride}); ")?;
                match list(nearest).as_slice() {
                    [] => f.write_str("no size within the bounds is"),
                    [one] => write!(f, "the nearest is {one}"),
                    several => write!(f, "the nearest are {}", several.join(" and ")),
                }
            }
            Self::NotOneWindow { height, window } => {
                write!(f, "{height} is not the height of one window, as `loop_closure` needs; {window} is")
            }
        }
    }
}

fn list(numbers: &[impl Display]) -> Vec<String> {
    numbers.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Ends, Layout};

    #[test]
    fn strides_of_a_model_divide_its_window() {
        assert_eq!(Geometry::default().strides(), [8, 16, 32]);
        assert_eq!(Geometry { window: 96, vae_factor: 8 }.strides(), [8, 16, 24, 32, 48]);
        assert!(Geometry { window: 8, vae_factor: 8 }.strides().is_empty());
    }

    #[test]
    fn a_rejected_stride_names_the_valid_ones() {
        let message =
            |window, stride| Geometry { window, vae_factor: 8 }.check_stride(stride).map_err(|error| error.to_string());
        assert_eq!(message(64, 16), Ok(16));
        for (stride, why) in [
            (0, "0 is less than the minimum of 8"),
            (-8, "-8 is less than the minimum of 8"),
            (12, "12 is not a multiple of 8"),
            (64, "64 is not smaller than the window of 64"),
            (24, "24 leaves columns or rows uncovered: it does not divide the window of 64"),
        ] {
            assert_eq!(message(64, stride), Err(format!("{why}; valid strides are 8, 16 and 32")));
        }
        assert_eq!(message(16, 4), Err("4 is less than the minimum of 8; the only valid stride is 8".to_owned()));
        assert_eq!(message(8, 12), Err("12 is not a multiple of 8; this model has no valid stride".to_owned()));
    }

    #[test]
    fn a_rejected_size_names_the_nearest_valid_ones() {
        let message = |window, size, stride, max| {
            let checked = Geometry { window, vae_factor: 8 }.check_size(size, Some(stride), &(512..=max));
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(message(64, 1024, 16, 3072), Ok(()));
        for (window, size, stride, max, expected) in [
            (64, 1000, 16, 3072, "1000 is not a multiple of 128 (8 * stride 16); the nearest are 896 and 1024"),
            (64, 520, 16, 3072, "520 is not a multiple of 128 (8 * stride 16); the nearest are 512 and 640"),
            (64, 520, 32, 520, "520 is not a multiple of 256 (8 * stride 32); the nearest is 512"),
            (96, 3071, 24, 3072, "3071 is not a multiple of 192 (8 * stride 24); the nearest are 2880 and 3072"),
            (96, 3070, 48, 3071, "3070 is not a multiple of 384 (8 * stride 48); the nearest is 2688"),
            (96, 770, 16, 767, "770 is not a multiple of 128 (8 * stride 16); no size within the bounds is"),
            (96, 512, 16, 3072, "512 is less than the window of 768 pixels; the minimum is 768"),
        ] {
            assert_eq!(message(window, size, stride, max), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_loop_is_one_window_high() {
        let geometry = Geometry::default();
        assert_eq!(geometry.check_looped_height(512), Ok(()));
        assert_eq!(
            geometry.check_looped_height(1024).unwrap_err().to_string(),
            "1024 is not the height of one window, as `loop_closure` needs; 512 is"
        );
    }

    proptest! {
        /// A stride is valid exactly when its windows cover every size that it allows.
        #[test]
        fn valid_strides_cover(units in 1_u32..16, stride in 1_u32..16, steps in 0_u32..8) {
            let (window, stride) = (units * 8, stride * 8);
            let geometry = Geometry { window, vae_factor: 8 };
            prop_assume!(stride < window);
            // The smallest size that passes, and the ones after it.
            let width = window.next_multiple_of(stride) + steps * stride;
            let valid = geometry.check_stride(stride.into()).is_ok();
            prop_assert_eq!(geometry.check_size((8 * width).into(), Some(stride.into()), &(0..=1 << 32)), Ok(()));
            let layout = Layout { height: window, width, window, stride, ends: Ends::Open };
            let covered = layout.positions().any(|(_, column)| column + window == width);
            prop_assert_eq!(covered, valid);
        }

        /// A size that a message suggests is valid, and no valid one is nearer.
        #[test]
        fn suggested_sizes_are_valid(size in 0_i128..4096, stride in prop::sample::select(vec![8_u64, 16, 32])) {
            let (geometry, bounds) = (Geometry::default(), 512..=3072);
            let valid = |size: i128| geometry.check_size(size, Some(stride), &bounds).is_ok();
            match geometry.check_size(size, Some(stride), &bounds) {
                Ok(()) => prop_assert!(size >= 512 && size % i128::from(8 * stride) == 0),
                Err(Error::TooSmall { minimum, .. }) => {
                    prop_assert!(valid(minimum.into()) && (0..i128::from(minimum)).all(|smaller| !valid(smaller)));
                }
                Err(Error::NotAMultiple { nearest, .. }) => {
                    prop_assert!(nearest.iter().all(|near| valid((*near).into()) && bounds.contains(near)));
                    let between = |near: &u64| size.abs_diff(i128::from(*near)) < u128::from(8 * stride);
                    prop_assert!(nearest.iter().all(between));
                }
                Err(other) => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
