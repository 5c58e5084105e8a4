//! How much a picture bends from one column, or row, to the next.
//!
//! `kink(j)` is the mean over rows and channels of `|d(j) - (d(j - 1) + d(j + 1)) / 2|` with `d(j) = x(j + 1) - x(j)`,
//! columns taken round the ring: how much the step from column `j` to the next differs from those beside it. A decoder
//! leaves kinks on the grid of latents, so others are compared with those: what is as high as the grid is not seen.

use crate::picture::Picture;

/// Channels of a picture.
const RGB: usize = 3;

/// The kinks of a picture along one axis, and where they are. Places are numbered by the first pixel after them.
pub(super) struct Kinks {
    /// The kink before each pixel; that before the first is the seam.
    kinks: Vec<f64>,
    /// Places on the grid of latents, without borders of windows.
    grid: Vec<usize>,
    /// Borders of windows, without the seam.
    borders: Vec<usize>,
}

impl Kinks {
    /// Those between columns. `borders` are in latents.
    pub(super) fn of_columns(picture: &Picture, factor: usize, borders: Vec<u32>) -> Self {
        let (width, height) = (picture.width as usize, picture.height as usize);
        let mut sums = vec![0_u64; width];
        let mut ring = Vec::with_capacity(RGB * (width + RGB));
        for row in picture.rgb.chunks_exact(RGB * width) {
            ring.clear();
            // The columns from `-2` to `width`.
            ring.extend((0..width + 3).flat_map(|j| &row[RGB * ((j + 2 * width - 2) % width)..][..RGB]));
            for (sum, x) in sums.iter_mut().zip(ring.windows(4 * RGB).step_by(RGB)) {
                *sum += (0..RGB).map(|c| double_kink([x[c], x[c + RGB], x[c + 2 * RGB], x[c + 3 * RGB]])).sum::<u64>();
            }
        }
        Self::new(sums.into_iter().map(|sum| mean(sum, height)).collect(), factor, borders)
    }

    /// Those between rows, from top to bottom. The ends have none.
    pub(super) fn of_rows(picture: &Picture, factor: usize, borders: Vec<u32>) -> Self {
        let (width, height) = (picture.width as usize, picture.height as usize);
        let row = |y: usize| &picture.rgb[RGB * width * y..][..RGB * width];
        let kink = |y: usize| {
            let values = (0..RGB * width).map(|i| double_kink([y - 2, y - 1, y, y + 1].map(|y| row(y)[i])));
            mean(values.sum(), width)
        };
        let inside = 2..height.saturating_sub(1);
        Self::new((0..height).map(|y| if inside.contains(&y) { kink(y) } else { 0.0 }).collect(), factor, borders)
    }

    fn new(kinks: Vec<f64>, factor: usize, borders: Vec<u32>) -> Self {
        // A kink takes two pixels on each side.
        let inside = |place: &usize| (2..kinks.len().saturating_sub(1)).contains(place);
        let borders: Vec<usize> = borders.into_iter().map(|latent| factor * latent as usize).filter(inside).collect();
        let grid = (factor..kinks.len()).step_by(factor.max(1)).filter(inside);
        let grid = grid.filter(|place| !borders.contains(place)).collect();
        Self { kinks, grid, borders }
    }

    /// The kink at the seam, as a multiple of the grid's.
    pub(super) fn seam(&self) -> Option<f64> {
        self.relative(&[0])
    }

    /// The mean kink at the borders of windows, as a multiple of the grid's.
    pub(super) fn borders(&self) -> Option<f64> {
        self.relative(&self.borders)
    }

    fn relative(&self, places: &[usize]) -> Option<f64> {
        let mean = |places: &[usize]| {
            let sum: f64 = places.iter().map(|&place| self.kinks[place]).sum();
            (!places.is_empty()).then(|| sum / places.len() as f64)
        };
        let grid = mean(&self.grid).filter(|grid| *grid > 0.0)?;
        Some(mean(places)? / grid)
    }
}

/// Twice the kink between the second and the third of four neighbours.
fn double_kink(x: [u8; 4]) -> u64 {
    let [a, b, c, d] = x.map(i64::from);
    (3 * (c - b) + a - d).unsigned_abs()
}

/// From the sum of double kinks along a column or row of `n` pixels to the mean kink.
fn mean(sum: u64, n: usize) -> f64 {
    sum as f64 / (2 * RGB * n) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture whose columns all are `value(column)`, or its rows.
    fn picture(width: u32, height: u32, value: impl Fn(u32, u32) -> u8) -> Picture {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Picture { width, height, rgb: pixels.flat_map(|(x, y)| [value(x, y); RGB]).collect() }
    }

    /// A slope has none, a step has one, and so has the end of a slope where it meets its beginning.
    #[test]
    fn kinks_are_where_slopes_change() {
        let slope = Kinks::of_columns(&picture(32, 2, |x, _| 2 * x as u8), 8, vec![]);
        assert!(slope.kinks[2..31].iter().all(|kink| *kink == 0.0), "{:?}", slope.kinks);
        assert_eq!(slope.kinks[0], 64.0);
        assert_eq!(slope.seam(), None, "there is no kink to compare with");
        let step = Kinks::of_columns(&picture(32, 2, |x, _| if x < 16 { 10 } else { 30 }), 8, vec![2]);
        assert_eq!((step.kinks[15], step.kinks[16], step.kinks[17]), (10.0, 20.0, 10.0));
    }

    #[test]
    fn borders_are_compared_with_the_rest_of_the_grid() {
        // Steps of 4 on the grid of 8 pixels, of 12 at the borders of windows.
        let value = |at: u32| (4 * (at / 8) + 8 * (at / 32)) as u8;
        for (name, kinks) in [
            ("columns", Kinks::of_columns(&picture(128, 8, |x, _| value(x)), 8, vec![0, 4, 8, 12])),
            ("rows", Kinks::of_rows(&picture(8, 128, |_, y| value(y)), 8, vec![0, 4, 8, 12])),
        ] {
            assert_eq!(kinks.borders, [32, 64, 96], "{name}: the seam does not count");
            assert_eq!(kinks.borders(), Some(3.0), "{name}");
        }
        assert_eq!(Kinks::of_columns(&picture(128, 8, |x, _| value(x)), 8, vec![]).borders(), None);
    }

    #[test]
    fn a_picture_may_have_any_size() {
        for (width, height) in [(1, 1), (2, 3), (3, 2), (7, 9), (8, 8), (17, 25)] {
            let picture = picture(width, height, |x, y| (x * 7 + y * 5) as u8);
            for kinks in [Kinks::of_columns(&picture, 8, vec![1, 2]), Kinks::of_rows(&picture, 8, vec![1, 2])] {
                assert!(kinks.seam().is_none_or(f64::is_finite) && kinks.borders().is_none_or(f64::is_finite));
            }
        }
    }
}
