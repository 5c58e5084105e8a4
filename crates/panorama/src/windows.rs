//! Where the windows of a panorama lie, cutting them out, and fusing them.
//!
//! The original averages windows evenly where they overlap. So the weight of each jumps at its borders, and so does the
//! picture, a little: one sees it in skies. Tapered windows (Hann) have no weight left there, and as many sums.

use std::f64::consts::PI;

use geometry::{Ends, Layout};
use tch::{Device, Kind, Tensor};

use crate::settings::Blend;

/// As far as the convolutions of the decoder of Stable Diffusion see, in latents: 17.3.
const MARGIN: i64 = 18;

/// The windows of one panorama, in the original's order.
#[derive(Debug)]
pub(crate) struct Windows {
    layout: Layout,
    /// First row and column of each.
    positions: Vec<(i64, i64)>,
    size: i64,
    height: i64,
    width: i64,
    /// The weights of a window, the same for all: `[1, 1, size, size]`; `None` if they are even.
    taper: Option<Tensor>,
    /// Sum of the weights of all windows at each latent, 1 where there is none: `[1, 1, height, width]`.
    total: Tensor,
}

impl Windows {
    /// The windows of a layout, on a device.
    pub(crate) fn new(layout: Layout, blend: Blend, device: Device) -> Self {
        let positions: Vec<(i64, i64)> = layout.positions().map(wide).collect();
        // Along an axis with one window there is nothing to blend.
        let (across, down) = (positions.iter().any(|at| at.1 != 0), positions.iter().any(|at| at.0 != 0));
        let smooth = blend == Blend::Smooth && (across || down);
        let taper = smooth.then(|| taper(layout.window.into(), across, down).to_device(device));
        Self::of(layout, positions, taper, device)
    }

    /// Windows at other places of the same panorama, averaged evenly.
    pub(crate) fn at(&self, positions: Vec<(i64, i64)>) -> Self {
        Self::of(self.layout, positions, None, self.total.device())
    }

    fn of(layout: Layout, positions: Vec<(i64, i64)>, taper: Option<Tensor>, device: Device) -> Self {
        let [size, height, width] = [layout.window, layout.height, layout.width].map(i64::from);
        let total = Tensor::zeros([1, 1, height, width], (Kind::Float, device));
        let mut windows = Self { layout, positions, size, height, width, taper, total };
        let ones = Tensor::ones([1, 1, size, size], (Kind::Float, device));
        let total = windows.sum(&ones.expand([windows.len() as i64, 1, size, size], false));
        // What no window covers stays 0, as in the original.
        windows.total = total.where_scalarother(&total.greater(0.0), 1.0);
        windows
    }

    /// Number of windows; never 0.
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    /// The window that all others are synchronised with.
    pub(crate) fn anchor(&self) -> usize {
        self.layout.anchor() as usize
    }

    /// First row and column of window `i`.
    pub(crate) fn position(&self, i: usize) -> (i64, i64) {
        self.positions[i]
    }

    /// Where the windows of a synchronisation on the canvas lie; see [`Layout::parts_at`].
    pub(crate) fn parts(&self, seed: u64, sync: u64) -> Vec<(i64, i64)> {
        self.layout.parts_at(seed, sync).map(wide).collect()
    }

    /// Whether windows at two places share latents.
    pub(crate) fn overlap(&self, a: (i64, i64), b: (i64, i64)) -> bool {
        let apart = (a.1 - b.1).rem_euclid(self.width);
        let across = apart < self.size || self.width - apart < self.size;
        // Those that do not wrap are not near each other round the edge: they are whole windows inside.
        (a.0 - b.0).abs() < self.size && across
    }

    /// Cuts window `i` out of `[1, c, height, width]`: `[1, c, size, size]`, not to be written to.
    pub(crate) fn cut(&self, panorama: &Tensor, i: usize) -> Tensor {
        let (row, _) = self.positions[i];
        let rows = panorama.narrow(2, row, self.size);
        let parts: Vec<_> = self.spans(i).map(|(column, width, _)| rows.narrow(3, column, width)).collect();
        if let [whole] = parts.as_slice() { whole.shallow_clone() } else { Tensor::cat(&parts, 3) }
    }

    /// How many latents of the other end are decoded beside each end.
    pub(crate) fn margin(&self) -> i64 {
        if self.layout.ends == Ends::Ring { MARGIN } else { 0 }
    }

    /// The panorama as it is decoded: [`Self::margin`] columns wider on both sides.
    pub(crate) fn with_margin(&self, panorama: &Tensor) -> Tensor {
        if self.margin() == 0 {
            return panorama.shallow_clone();
        }
        let columns = Tensor::arange_start(-MARGIN, self.width + MARGIN, (Kind::Int64, panorama.device()));
        panorama.index_select(3, &columns.remainder(self.width))
    }

    /// Averages windows `[n, c, size, size]`, one for each position, into a panorama.
    pub(crate) fn fuse(&self, windows: &Tensor) -> Tensor {
        self.sum(windows) / &self.total
    }

    /// The sum of the windows by their weights.
    fn sum(&self, windows: &Tensor) -> Tensor {
        let tapered = self.taper.as_ref().map(|taper| windows * taper);
        let windows = tapered.as_ref().unwrap_or(windows);
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

fn wide((row, column): (u32, u32)) -> (i64, i64) {
    (row.into(), column.into())
}

/// The weights of a tapered window, `[1, 1, size, size]`: `sin(pi (i + 0.5) / size)` squared along each of the axes.
/// Windows of any distance that divides `size` in two or more then add up to a constant, but for the first and last
/// ones of an axis.
fn taper(size: i64, across: bool, down: bool) -> Tensor {
    let options = (Kind::Double, Device::Cpu);
    let hann = ((Tensor::arange(size, options) + 0.5) * (PI / size as f64)).sin().square();
    let along = |tapers: bool| if tapers { hann.shallow_clone() } else { Tensor::ones([size], options) };
    (along(down).view([1, 1, -1, 1]) * along(across).view([1, 1, 1, -1])).to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use geometry::{Ends, Geometry};

    use super::*;

    fn windows((width, height): (u32, u32), stride: u32, blend: Blend, ends: Ends) -> Windows {
        let layout = Geometry::default().layout((width, height), stride, ends);
        Windows::new(layout, blend, Device::Cpu)
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    /// Whatever the weights, windows that agree are the panorama that they were cut from.
    #[test]
    fn windows_that_agree_are_fused_to_what_they_were() {
        for (size, strides) in [((512, 512), vec![16]), ((1024, 512), vec![8, 16, 32]), ((768, 1024), vec![16, 32])] {
            for stride in strides {
                let ways = [Blend::Even, Blend::Smooth].map(|blend| [(blend, Ends::Open), (blend, Ends::Ring)]);
                for (blend, ends) in ways.concat() {
                    let windows = windows(size, stride, blend, ends);
                    let panorama = libtorch::randn(1, &[1, 4, windows.height, windows.width]).unwrap();
                    let cut: Vec<Tensor> = (0..windows.len()).map(|i| windows.cut(&panorama, i)).collect();
                    let error = largest_difference(&windows.fuse(&Tensor::cat(&cut, 0)), &panorama);
                    assert!(error < 1e-5, "{size:?} {stride} {blend:?} {ends:?}: {error}");
                }
            }
        }
    }

    /// The weights of a ring are the same everywhere.
    #[test]
    fn tapered_windows_of_a_ring_add_up_to_a_constant() {
        for stride in [8, 16, 32] {
            let total = windows((1024, 512), stride, Blend::Smooth, Ends::Ring).total;
            let expected = 32.0 / f64::from(stride);
            assert!(largest_difference(&total, &Tensor::from(expected)) < 1e-6, "{stride}");
        }
    }

    #[test]
    fn the_margin_of_a_ring_is_the_other_end() {
        for (width, ends, expected) in [(512, Ends::Open, 64), (512, Ends::Ring, 64 + 36), (1024, Ends::Ring, 128 + 36)]
        {
            let windows = windows((width, 512), 16, Blend::Even, ends);
            let panorama = Tensor::arange(windows.width, (Kind::Float, Device::Cpu)).view([1, 1, 1, -1]);
            let wide = windows.with_margin(&panorama);
            assert_eq!(wide.size()[3], expected);
            let margin = windows.margin();
            assert_eq!(wide.narrow(3, margin, windows.width), panorama);
            assert_eq!(wide.narrow(3, 0, margin), panorama.narrow(3, windows.width - margin, margin));
            assert_eq!(wide.narrow(3, margin + windows.width, margin), panorama.narrow(3, 0, margin));
        }
    }

    /// One window that differs from the others shows at its borders if windows are even, and does not if they are not.
    #[test]
    fn tapered_windows_have_no_borders() {
        for stride in [8, 16, 32] {
            let step = |blend| {
                let windows = windows((1536, 512), stride, blend, Ends::Open);
                let n = windows.len() as i64;
                let views = Tensor::zeros([n, 4, 64, 64], (Kind::Float, Device::Cpu));
                let _ = views.narrow(0, n / 2, 1).fill_(1.0);
                windows.fuse(&views).diff::<Tensor>(1, 3, None, None).abs().max().double_value(&[])
            };
            let (even, smooth) = (step(Blend::Even), step(Blend::Smooth));
            assert!((even - f64::from(stride) / 64.0).abs() < 1e-6, "{stride}: {even}");
            // The steepest slope of the taper, pi / 64, by what tapers that far apart add up to.
            let steepest = PI / 64.0 * f64::from(stride) / 32.0;
            assert!(smooth < 1.01 * steepest, "{stride}: {smooth} is more than {steepest}");
        }
    }
}
