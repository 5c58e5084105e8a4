//! Where the windows of a panorama lie, cutting them out, and fusing them.

use tch::{Device, Kind, Tensor};

/// The windows of one panorama, in the original's order.
#[derive(Debug)]
pub struct Windows {
    places: Vec<(i64, i64)>,
    size: i64,
    height: i64,
    width: i64,
    /// By how many windows each latent is covered, at least 1: `[1, 1, height, width]`.
    counts: Tensor,
}

impl Windows {
    /// The windows of `size` by `size` latents on a panorama of `height` by `width`: row by row, every `stride`. With
    /// `loop_closure`, windows that wrap past the right edge are appended; as many as the original appends, which is
    /// two less than would close the ring at even distances.
    pub fn new(height: i64, width: i64, size: i64, stride: i64, loop_closure: bool, device: Device) -> Self {
        let along = |length: i64| (0..=(length - size) / stride).map(move |i| i * stride);
        let mut places: Vec<_> = along(height).flat_map(|row| along(width).map(move |column| (row, column))).collect();
        if loop_closure {
            places.extend((0..size / stride - 2).map(|i| (0, width - size + (i + 1) * stride)));
        }
        let counts = Tensor::zeros([1, 1, height, width], (Kind::Float, device));
        let mut windows = Self { places, size, height, width, counts };
        let ones = Tensor::ones([1, 1, size, size], (Kind::Float, device));
        let counts = windows.sum(std::iter::repeat_n(&ones, windows.len()));
        // What no window covers stays 0, as in the original.
        windows.counts = counts.clamp_min(1.0);
        windows
    }

    /// How many there are; never 0.
    #[expect(clippy::len_without_is_empty, reason = "there is always a window")]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The window that all others are synchronised with.
    pub fn anchor(&self) -> usize {
        self.places.len() / 2
    }

    /// Cuts window `i` out of `[1, c, height, width]`: `[1, c, size, size]`, not to be written to.
    pub fn cut(&self, panorama: &Tensor, i: usize) -> Tensor {
        let (row, _) = self.places[i];
        let rows = panorama.narrow(2, row, self.size);
        let parts: Vec<_> = self.spans(i).map(|(column, width, _)| rows.narrow(3, column, width)).collect();
        if let [whole] = parts.as_slice() { whole.shallow_clone() } else { Tensor::cat(&parts, 3) }
    }

    /// Averages windows `[1, c, size, size]`, one for each place, into a panorama.
    pub fn fuse<'a>(&self, windows: impl Iterator<Item = &'a Tensor>) -> Tensor {
        self.sum(windows) / &self.counts
    }

    fn sum<'a>(&self, windows: impl Iterator<Item = &'a Tensor>) -> Tensor {
        let mut sum: Option<Tensor> = None;
        for (i, window) in windows.enumerate() {
            let channels = window.size()[1];
            let sum = sum.get_or_insert_with(|| {
                Tensor::zeros([1, channels, self.height, self.width], (Kind::Float, window.device()))
            });
            let rows = sum.narrow(2, self.places[i].0, self.size);
            for (column, width, within) in self.spans(i) {
                let _ = rows.narrow(3, column, width).g_add_(&window.narrow(3, within, width));
            }
        }
        sum.expect("there is always a window")
    }

    /// The columns of window `i` as one span, or two where it wraps: first column, width, and offset in the window.
    fn spans(&self, i: usize) -> impl Iterator<Item = (i64, i64, i64)> {
        let (_, column) = self.places[i];
        let before_edge = (self.width - column).clamp(0, self.size);
        let spans = [
            (column % self.width, before_edge, 0),
            ((column + before_edge) % self.width, self.size - before_edge, before_edge),
        ];
        spans.into_iter().filter(|(_, width, _)| *width > 0)
    }
}
