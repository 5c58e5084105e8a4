//! Where the windows of a panorama lie, cutting them out, and fusing them.

use geometry::Layout;
use tch::{Device, Kind, Tensor};

/// The windows of one panorama, in the original's order.
#[derive(Debug)]
pub(crate) struct Windows {
    /// First row and column of each.
    positions: Vec<(i64, i64)>,
    size: i64,
    height: i64,
    width: i64,
    /// Number of windows that cover each latent, at least 1: `[1, 1, height, width]`.
    counts: Tensor,
}

impl Windows {
    /// The windows of a layout, on a device.
    pub(crate) fn new(layout: Layout, device: Device) -> Self {
        let positions = layout.positions().map(|(row, column)| (row.into(), column.into())).collect();
        let [size, height, width] = [layout.window, layout.height, layout.width].map(i64::from);
        let counts = Tensor::zeros([1, 1, height, width], (Kind::Float, device));
        let mut windows = Self { positions, size, height, width, counts };
        let ones = Tensor::ones([1, 1, size, size], (Kind::Float, device));
        let counts = windows.sum(&ones.expand([windows.len() as i64, 1, size, size], false));
        // What no window covers stays 0, as in the original.
        windows.counts = counts.clamp_min(1.0);
        windows
    }

    /// Number of windows; never 0.
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    /// The window that all others are synchronised with.
    pub(crate) fn anchor(&self) -> usize {
        self.positions.len() / 2
    }

    /// Cuts window `i` out of `[1, c, height, width]`: `[1, c, size, size]`, not to be written to.
    pub(crate) fn cut(&self, panorama: &Tensor, i: usize) -> Tensor {
        let (row, _) = self.positions[i];
        let rows = panorama.narrow(2, row, self.size);
        let parts: Vec<_> = self.spans(i).map(|(column, width, _)| rows.narrow(3, column, width)).collect();
        if let [whole] = parts.as_slice() { whole.shallow_clone() } else { Tensor::cat(&parts, 3) }
    }

    /// Averages windows `[n, c, size, size]`, one for each position, into a panorama.
    pub(crate) fn fuse(&self, windows: &Tensor) -> Tensor {
        self.sum(windows) / &self.counts
    }

    fn sum(&self, windows: &Tensor) -> Tensor {
        let sum = Tensor::zeros([1, windows.size()[1], self.height, self.width], (Kind::Float, windows.device()));
        for (i, window) in windows.split(1, 0).iter().enumerate() {
            let rows = sum.narrow(2, self.positions[i].0, self.size);
            for (column, width, within) in self.spans(i) {
                let _ = rows.narrow(3, column, width).g_add_(&window.narrow(3, within, width));
            }
        }
        sum
    }

    /// The columns of window `i` as one span, or two where it wraps: first column, width, and offset in the window.
    fn spans(&self, i: usize) -> impl Iterator<Item = (i64, i64, i64)> {
        let (_, column) = self.positions[i];
        let before_edge = (self.width - column).clamp(0, self.size);
        let spans = [
            (column % self.width, before_edge, 0),
            ((column + before_edge) % self.width, self.size - before_edge, before_edge),
        ];
        spans.into_iter().filter(|(_, width, _)| *width > 0)
    }
}
