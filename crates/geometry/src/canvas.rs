//! Where the windows lie that synchronise a panorama on the canvas: side by side, and elsewhere each time.

use crate::windows::{Ends, Layout};

impl Layout {
    /// How many windows fit side by side, in all rows.
    pub fn parts(self) -> u64 {
        u64::from(fitting(self.height, self.window)) * u64::from(fitting(self.width, self.window))
    }

    /// First row and column of each of them in synchronisation number `sync`, from 0, of a panorama of this seed.
    ///
    /// Round a ring they are evenly apart, and moved by any number of columns. Else they lie side by side in the
    /// middle, moved by up to half a window, by turns to one side and to the other, but not past an end: so of two
    /// synchronisations in a row one reaches each end. A window that an end stopped overlaps its neighbour.
    pub fn parts_at(self, seed: u64, sync: u64) -> impl Iterator<Item = (u32, u32)> {
        let [across, down] = [0, 1].map(|axis| mix(seed.wrapping_add(mix(2 * sync + axis))));
        let forth = sync.is_multiple_of(2);
        let columns = if self.ends == Ends::Ring {
            around(self.width, self.window, across)
        } else {
            side_by_side(self.width, self.window, across, forth)
        };
        let rows = side_by_side(self.height, self.window, down, forth);
        rows.into_iter().flat_map(move |row| columns.clone().into_iter().map(move |column| (row, column)))
    }
}

/// How many windows fit in a length; at least 1.
fn fitting(length: u32, window: u32) -> u32 {
    (length / window.max(1)).max(1)
}

fn around(length: u32, window: u32, drawn: u64) -> Vec<u32> {
    let (length, count) = (u64::from(length.max(1)), u64::from(fitting(length, window)));
    let first = drawn % length;
    (0..count).map(|i| ((first + i * length / count) % length) as u32).collect()
}

fn side_by_side(length: u32, window: u32, drawn: u64, forth: bool) -> Vec<u32> {
    let (size, count) = (i64::from(window), i64::from(fitting(length, window)));
    let shift = (drawn % (u64::from(window) / 2).max(1)) as i64;
    let room = i64::from(length) - size;
    let first = (i64::from(length) - count * size).div_euclid(2) + if forth { shift } else { -shift };
    (0..count).map(|i| (first + i * size).clamp(0, room.max(0)) as u32).collect()
}

/// One number of `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::Geometry;

    fn layout(width: u32, height: u32, ends: Ends) -> Layout {
        Geometry::default().layout((width, height), 16, ends)
    }

    fn columns(layout: Layout, seed: u64, sync: u64) -> Vec<u32> {
        layout.parts_at(seed, sync).map(|(_, column)| column).collect()
    }

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        assert_eq!([mix(0), mix(1)], [0xe220_a839_7b1d_cdaf, 0x910a_2dec_8902_5cc1]);
    }

    #[test]
    fn a_default_panorama_has_four() {
        for ends in [Ends::Open, Ends::Looped, Ends::Ring] {
            assert_eq!(layout(2048, 512, ends).parts(), 4);
            assert_eq!(layout(2048, 512, ends).parts_at(2, 0).count(), 4);
        }
        assert_eq!(layout(1152, 1024, Ends::Open).parts(), 4);
    }

    proptest! {
        #[test]
        fn as_many_as_are_counted_and_inside(
            rows in 0_u32..5, columns in 0_u32..20, seed: u64, sync in 0_u64..60,
            ends in prop::sample::select(vec![Ends::Open, Ends::Looped, Ends::Ring]),
        ) {
            let layout = layout(512 + 128 * columns, 512 + 128 * rows, ends);
            let parts: Vec<_> = layout.parts_at(seed, sync).collect();
            prop_assert_eq!(parts.len() as u64, layout.parts());
            prop_assert_eq!(parts.iter().collect::<BTreeSet<_>>().len(), parts.len(), "no two are the same");
            for (row, column) in parts {
                prop_assert!(row + 64 <= layout.height);
                let end = if ends == Ends::Ring { column } else { column + 63 };
                prop_assert!(end < layout.width);
            }
        }

        /// Round a ring no two overlap, and nothing is nearer to an end than anything else.
        #[test]
        fn round_a_ring_none_overlap(columns_more in 0_u32..20, seed: u64, sync in 0_u64..60) {
            let layout = layout(512 + 128 * columns_more, 512, Ends::Ring);
            let mut covered = vec![0; layout.width as usize];
            for column in columns(layout, seed, sync) {
                (column..column + 64).for_each(|at| covered[(at % layout.width) as usize] += 1);
            }
            prop_assert!(covered.iter().all(|&count| count <= 1), "{covered:?}");
        }

        /// Two synchronisations in a row reach both ends, and everything between them.
        #[test]
        fn the_ends_are_reached_by_turns(columns_more in 0_u32..20, seed: u64, sync in 0_u64..60) {
            let layout = layout(512 + 128 * columns_more, 512, Ends::Open);
            let mut missed: Vec<u32> = (0..layout.width).collect();
            for sync in [sync, sync + 1] {
                let parts = columns(layout, seed, sync);
                missed.retain(|at| !parts.iter().any(|column| (*column..column + 64).contains(at)));
            }
            // Where a width is not a multiple of windows, as many columns as are left over may be missed.
            let over = layout.width % 64;
            prop_assert!(missed.iter().all(|&at| at < over || at >= layout.width - over), "{missed:?}");
        }
    }
}
