//! Where the windows of a panorama lie.

use std::collections::BTreeSet;

use crate::sizes::Geometry;

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
    /// Appends windows that wrap past the right edge.
    pub loop_closure: bool,
}

impl Geometry {
    /// The layout of a picture of this size in pixels.
    pub fn layout(self, (width, height): (u32, u32), stride: u32, loop_closure: bool) -> Layout {
        let factor = self.vae_factor.max(1);
        Layout { height: height / factor, width: width / factor, window: self.window, stride, loop_closure }
    }
}

impl Layout {
    /// Number of windows; at least 1.
    pub fn count(self) -> u64 {
        self.along(self.height) * self.along(self.width) + u64::from(self.wrapped())
    }

    /// The first row and column of each window, in the original's order: row by row, then the windows that wrap. The
    /// column of a window that wraps counts from the left edge, too, so the window ends past the right one.
    pub fn positions(self) -> impl Iterator<Item = (u32, u32)> {
        let starts = move |length| (0..self.along(length) as u32).map(move |i| i * self.stride);
        let grid = starts(self.height).flat_map(move |row| starts(self.width).map(move |column| (row, column)));
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

    /// Windows along one axis. What is left at the end stays uncovered.
    fn along(self, length: u32) -> u64 {
        u64::from(length.saturating_sub(self.window) / self.stride.max(1)) + 1
    }

    /// Windows past the right edge: as many as the original appends, two less than would close the ring at even
    /// distances.
    fn wrapped(self) -> u32 {
        if self.loop_closure { (self.window / self.stride.max(1)).saturating_sub(2) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn positions(width: u32, height: u32, stride: u32, loop_closure: bool) -> Vec<(u32, u32)> {
        Geometry::default().layout((width, height), stride, loop_closure).positions().collect()
    }

    #[test]
    fn windows_lie_row_by_row() {
        assert_eq!(positions(512, 512, 16, false), [(0, 0)]);
        assert_eq!(positions(768, 640, 16, false), [(0, 0), (0, 16), (0, 32), (16, 0), (16, 16), (16, 32)]);
    }

    #[test]
    fn a_loop_appends_windows_past_the_right_edge() {
        assert_eq!(positions(640, 512, 16, true), [(0, 0), (0, 16), (0, 32), (0, 48)]);
        assert_eq!(positions(768, 512, 32, true), [(0, 0), (0, 32)], "nothing to append");
    }

    #[test]
    fn borders_are_where_windows_begin_or_end() {
        let borders = |width, height, stride, loop_closure| {
            let layout = Geometry::default().layout((width, height), stride, loop_closure);
            (layout.column_borders(), layout.row_borders())
        };
        assert_eq!(borders(512, 512, 16, false), (vec![], vec![]));
        assert_eq!(borders(640, 512, 16, false), (vec![16, 64], vec![]));
        assert_eq!(borders(1024, 768, 32, false), (vec![32, 64, 96], vec![32, 64]));
        assert_eq!(borders(640, 512, 16, true), (vec![16, 32, 48, 64], vec![]), "those that wrap count, too");
    }

    proptest! {
        #[test]
        fn as_many_are_counted_as_there_are(
            height in 1_u32..200, width in 1_u32..500, window in 1_u32..128, stride in 1_u32..64, loop_closure: bool,
        ) {
            let layout = Layout { height, width, window, stride, loop_closure };
            let positions: Vec<_> = layout.positions().collect();
            prop_assert_eq!(positions.len() as u64, layout.count());
            prop_assert_eq!(positions[0], (0, 0));
            let distinct: std::collections::BTreeSet<_> = positions.iter().collect();
            prop_assert_eq!(distinct.len(), positions.len());
        }

        #[test]
        fn windows_stay_inside_and_wrap_once(
            rows in 0_u32..4,
            columns in 0_u32..8,
            stride in prop::sample::select(vec![8_u32, 16, 32]),
            loop_closure: bool,
        ) {
            let (height, width) = (64 + rows * stride, 64 + columns * stride);
            let layout = Layout { height, width, window: 64, stride, loop_closure };
            for (i, (row, column)) in layout.positions().enumerate() {
                let wraps = i >= ((rows + 1) * (columns + 1)) as usize;
                prop_assert!(row + 64 <= height);
                prop_assert_eq!(column + 64 > width, wraps);
                prop_assert!(column < width, "a window begins inside");
            }
        }
    }
}
