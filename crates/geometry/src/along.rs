//! Which texts a window follows, where several go from left to right.

use crate::windows::{Ends, Layout};

/// The two texts that are nearest to a window, by their indices, which may be the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearest {
    /// The text before its middle.
    pub first: usize,
    /// The text behind it.
    pub second: usize,
    /// How much the second counts, from 0 to less than 1; the first counts for the rest.
    pub share: f64,
}

impl Layout {
    /// Which of `texts` texts, at least one, a window that begins at `column` follows, by where its middle is.
    ///
    /// They are at even distances. Between ends the first window follows the first text and the last window the last
    /// one. Where windows wrap there is as much of the picture for each text, whose middle it is nearest to, and behind
    /// the last comes the first.
    pub fn texts_at(self, column: u32, texts: usize) -> Nearest {
        let count = texts.max(1) as u64;
        let (width, window, column) = (u64::from(self.width.max(1)), u64::from(self.window), u64::from(column));
        if self.ends == Ends::Open {
            let room = width.saturating_sub(window);
            // A single window is in the middle.
            let (place, one) = if room == 0 { (count - 1, 2) } else { ((count - 1) * column.min(room), room) };
            let first = place / one;
            let second = (first + 1).min(count - 1);
            return Nearest { first: first as usize, second: second as usize, share: part(place % one, one) };
        }
        // In halves of latents, on which the middle of a window or of a text's part may lie.
        let one = 2 * width;
        let place = (count * (2 * column + window + one) - width) % (count * one);
        let first = place / one;
        Nearest { first: first as usize, second: ((first + 1) % count) as usize, share: part(place % one, one) }
    }
}

fn part(of: u64, whole: u64) -> f64 {
    of as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Geometry;

    fn texts(width: u32, ends: Ends, count: usize) -> Vec<(usize, usize, f64)> {
        let layout = Geometry::default().layout((width, 512), 16, ends);
        let nearest = layout.positions().map(|(_, column)| layout.texts_at(column, count));
        nearest.map(|Nearest { first, second, share }| (first, second, share)).collect()
    }

    #[test]
    fn between_ends_the_first_and_the_last_window_follow_one_text() {
        let two = texts(1024, Ends::Open, 2);
        assert_eq!(two, [(0, 1, 0.0), (0, 1, 0.25), (0, 1, 0.5), (0, 1, 0.75), (1, 1, 0.0)]);
        let three = texts(1024, Ends::Open, 3);
        assert_eq!(three, [(0, 1, 0.0), (0, 1, 0.5), (1, 2, 0.0), (1, 2, 0.5), (2, 2, 0.0)]);
        assert_eq!(texts(512, Ends::Open, 2), [(0, 1, 0.5)], "a single window is in the middle");
        assert_eq!(texts(512, Ends::Open, 3), [(1, 2, 0.0)]);
        assert_eq!(texts(1024, Ends::Open, 1), [(0, 0, 0.0); 5]);
    }

    #[test]
    fn round_a_ring_each_text_has_a_part_of_the_picture() {
        // Windows begin at 0, 16, .. of 128; their middles are 32 later, those of the texts at 32 and 96.
        let expected = [
            (0, 1, 0.0),
            (0, 1, 0.25),
            (0, 1, 0.5),
            (0, 1, 0.75),
            (1, 0, 0.0),
            (1, 0, 0.25),
            (1, 0, 0.5),
            (1, 0, 0.75),
        ];
        assert_eq!(texts(1024, Ends::Ring, 2), expected);
        assert_eq!(texts(1024, Ends::Looped, 2), expected[..7], "the windows that wrap go on");
    }

    proptest! {
        /// From one window to the next the mixture changes by no more than the distance of the windows.
        #[test]
        fn mixtures_change_gradually(
            columns in 1_u32..40, count in 1_usize..9, ends in prop::sample::select(vec![Ends::Open, Ends::Ring]),
        ) {
            let layout = Geometry::default().layout((512 + 128 * columns, 512), 16, ends);
            let place = |column| {
                let Nearest { first, second, share } = layout.texts_at(column, count);
                assert!(first < count && second < count && (0.0..1.0).contains(&share));
                assert!(second == (first + 1) % count || ends == Ends::Open && second == first);
                first as f64 + share
            };
            let starts: Vec<u32> = layout.positions().map(|(_, column)| column).collect();
            for pair in starts.windows(2) {
                let (length, texts) = match ends {
                    Ends::Open => (layout.width - layout.window, count as f64 - 1.0),
                    _ => (layout.width, count as f64),
                };
                let step = (place(pair[1]) - place(pair[0])).rem_euclid(count as f64);
                let expected = texts * f64::from(pair[1] - pair[0]) / f64::from(length);
                prop_assert!((step - expected).abs() < 1e-9, "{step} {expected}");
            }
        }
    }
}
