//! Where the windows of a panorama lie.

use std::collections::BTreeSet;

use crate::sizes::Geometry;

/// What windows do at the left and right end of a panorama.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    /// They end there.
    #[default]
    Open,
    /// They end there, and the original's `loop_closure` appends some that wrap: two less than would close the ring.
    Looped,
    /// They go round, at even distances: the panorama has no ends.
    Ring,
}

impl Ends {
    /// Those of the inputs of these names, of which one at most is true.
    pub fn of(loop_closure: bool, seamless: bool) -> Self {
        match (loop_closure, seamless) {
            (_, true) => Self::Ring,
            (true, false) => Self::Looped,
            (false, false) => Self::Open,
        }
    }
}

/// The size of a panorama and the distance of its windows, all in latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Height of the panorama.
    pub height: u32,
    /// Width of the panorama.
    pub width: u32,
    /// Side of a window.
    pub window: u32,
    /// Distance between neighbouring windows.
    pub stride: u32,
    /// Whether windows wrap.
    pub ends: Ends,
}

impl Geometry {
    /// The layout of a picture of this size in pixels.
    pub fn layout(self, (width, height): (u32, u32), stride: u32, ends: Ends) -> Layout {
        let factor = self.vae_factor.max(1);
        Layout { height: height / factor, width: width / factor, window: self.window, stride, ends }
    }
}

impl Layout {
    /// Number of windows; at least 1.
    pub fn count(self) -> u64 {
        self.rows() * self.columns() + u64::from(self.wrapped())
    }

    /// Index of the window that the others are synchronised with: in a ring the one in the middle of the picture, else
    /// that in the middle of the list, as in the original.
    pub fn anchor(self) -> u64 {
        let middle = u64::from(self.width.saturating_sub(self.window) / 2 / self.stride.max(1));
        if self.ends == Ends::Ring { self.rows() / 2 * self.columns() + middle } else { self.count() / 2 }
    }

    /// The first row and column of each window, in the original's order: row by row, then the windows that wrap. The
    /// column of a window that wraps counts from the left edge, too, so the window ends past the right one.
    pub fn positions(self) -> impl Iterator<Item = (u32, u32)> {
        let starts = move |count| (0..count as u32).map(move |i| i * self.stride);
        let grid = starts(self.rows()).flat_map(move |row| starts(self.columns()).map(move |column| (row, column)));
        let last = self.width.saturating_sub(self.window);
        grid.chain((1..=self.wrapped()).map(move |i| (0, last + i * self.stride)))
    }

    /// The columns at which windows begin or end, in ascending order; none is the edge of the panorama.
    pub fn column_borders(self) -> Vec<u32> {
        self.borders(self.width, |(_, column)| column)
    }

    /// The rows at which windows begin or end, likewise.
    pub fn row_borders(self) -> Vec<u32> {
        self.borders(self.height, |(row, _)| row)
    }

    fn borders(self, length: u32, start: impl Fn((u32, u32)) -> u32) -> Vec<u32> {
        let ends = |position| [start(position), start(position) + self.window].map(|border| border % length.max(1));
        let borders: BTreeSet<u32> = self.positions().flat_map(ends).filter(|border| *border > 0).collect();
        borders.into_iter().collect()
    }

    fn rows(self) -> u64 {
        self.along(self.height)
    }

    /// Windows in a row, those of a ring at each stride up to the right edge, but without those that the original
    /// appends.
    fn columns(self) -> u64 {
        if self.ends == Ends::Ring { self.width.div_ceil(self.stride.max(1)).into() } else { self.along(self.width) }
    }

    /// Windows along one axis. What is left at the end stays uncovered.
    fn along(self, length: u32) -> u64 {
        u64::from(length.saturating_sub(self.window) / self.stride.max(1)) + 1
    }

    /// Windows past the right edge: as many as the original appends, two less than would close the ring at even
    /// distances.
    fn wrapped(self) -> u32 {
        if self.ends == Ends::Looped { (self.window / self.stride.max(1)).saturating_sub(2) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(width: u32, height: u32, stride: u32, ends: Ends) -> Layout {
        Geometry::default().layout((width, height), stride, ends)
    }

    fn positions(width: u32, height: u32, stride: u32, ends: Ends) -> Vec<(u32, u32)> {
        layout(width, height, stride, ends).positions().collect()
    }

    fn ends() -> impl Strategy<Value = Ends> {
        prop::sample::select(vec![Ends::Open, Ends::Looped, Ends::Ring])
    }

    #[test]
    fn windows_lie_row_by_row() {
        assert_eq!(positions(512, 512, 16, Ends::Open), [(0, 0)]);
        assert_eq!(positions(768, 640, 16, Ends::Open), [(0, 0), (0, 16), (0, 32), (16, 0), (16, 16), (16, 32)]);
    }

    #[test]
    fn a_loop_appends_windows_past_the_right_edge() {
        assert_eq!(positions(640, 512, 16, Ends::Looped), [(0, 0), (0, 16), (0, 32), (0, 48)]);
        assert_eq!(positions(768, 512, 32, Ends::Looped), [(0, 0), (0, 32)], "nothing to append");
    }

    #[test]
    fn a_ring_has_a_window_at_every_stride() {
        assert_eq!(positions(640, 512, 32, Ends::Ring), [(0, 0), (0, 32), (0, 64)]);
        assert_eq!(positions(512, 512, 32, Ends::Ring), [(0, 0), (0, 32)]);
        let columns = |row| [(row, 0), (row, 32), (row, 64)];
        assert_eq!(positions(768, 768, 32, Ends::Ring), [columns(0), columns(32)].concat());
        for (stride, count) in [(8, 32), (16, 16), (32, 8)] {
            assert_eq!(layout(2048, 512, stride, Ends::Ring).count(), count);
        }
    }

    #[test]
    fn the_anchor_is_in_the_middle() {
        for (width, height, stride, ends, expected) in [
            (2048, 512, 16, Ends::Open, (0, 96)),
            (2048, 512, 16, Ends::Looped, (0, 112)),
            (2048, 512, 16, Ends::Ring, (0, 96)),
            (2048, 1024, 32, Ends::Ring, (32, 96)),
            (512, 512, 8, Ends::Ring, (0, 0)),
        ] {
            let layout = layout(width, height, stride, ends);
            assert_eq!(layout.positions().nth(layout.anchor() as usize), Some(expected), "{layout:?}");
        }
    }

    #[test]
    fn borders_are_where_windows_begin_or_end() {
        let borders = |width, height, stride, ends| {
            let layout = layout(width, height, stride, ends);
            (layout.column_borders(), layout.row_borders())
        };
        assert_eq!(borders(512, 512, 16, Ends::Open), (vec![], vec![]));
        assert_eq!(borders(640, 512, 16, Ends::Open), (vec![16, 64], vec![]));
        assert_eq!(borders(1024, 768, 32, Ends::Open), (vec![32, 64, 96], vec![32, 64]));
        assert_eq!(borders(640, 512, 16, Ends::Looped), (vec![16, 32, 48, 64], vec![]), "those that wrap count, too");
        assert_eq!(borders(768, 512, 32, Ends::Ring), (vec![32, 64], vec![]));
    }

    proptest! {
        #[test]
        fn as_many_are_counted_as_there_are(
            height in 1_u32..200, width in 1_u32..500, window in 1_u32..128, stride in 1_u32..64, ends in ends(),
        ) {
            let layout = Layout { height, width, window, stride, ends };
            let positions: Vec<_> = layout.positions().collect();
            prop_assert_eq!(positions.len() as u64, layout.count());
            prop_assert_eq!(positions[0], (0, 0));
            let distinct: std::collections::BTreeSet<_> = positions.iter().collect();
            prop_assert_eq!(distinct.len(), positions.len());
            prop_assert!(layout.anchor() < layout.count());
        }

        #[test]
        fn windows_stay_inside_and_wrap_once(
            rows in 0_u32..4,
            columns in 0_u32..8,
            stride in prop::sample::select(vec![8_u32, 16, 32]),
            ends in ends(),
        ) {
            let (height, width) = (64 + rows * stride, 64 + columns * stride);
            let layout = Layout { height, width, window: 64, stride, ends };
            for (i, (row, column)) in layout.positions().enumerate() {
                let wraps = i >= ((rows + 1) * (columns + 1)) as usize;
                prop_assert!(row + 64 <= height);
                prop_assert!(ends == Ends::Ring || (column + 64 > width) == wraps);
                prop_assert!(column < width, "a window begins inside");
            }
        }

        /// Round a ring each column is in as many windows as any other.
        #[test]
        fn a_ring_covers_evenly(columns in 0_u32..8, stride in prop::sample::select(vec![8_u32, 16, 32])) {
            let width = 64 + columns * stride;
            let layout = Layout { height: 64, width, window: 64, stride, ends: Ends::Ring };
            let mut covered = vec![0; width as usize];
            for (_, column) in layout.positions() {
                (column..column + 64).for_each(|at| covered[(at % width) as usize] += 1);
            }
            prop_assert!(covered.iter().all(|&count| count == 64 / stride), "{covered:?}");
        }
    }
}
