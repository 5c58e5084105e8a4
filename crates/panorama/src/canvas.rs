//! Synchronisation on the canvas: of windows side by side instead of all that overlap, so a third or less of the
//! gradients.
//!
//! The gradients of windows that overlap say nearly the same of what they share. So a step takes those of windows that
//! tile the panorama, and moves the panorama itself; the next one takes windows that lie elsewhere, so that no border
//! is always at the same place. The anchor is moved with the rest, so its own output is computed again.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::windows::Windows;

/// Where the windows of one synchronisation lie.
pub(crate) struct Parts {
    /// Those that are compared with the target; without the anchor where it is the target, so that its gradient is 0.
    positions: Vec<(i64, i64)>,
    moves_anchor: bool,
}

/// The synchronisation of one step.
pub(crate) struct Canvas {
    parts: Windows,
    /// The gradients that are known.
    gradients: BTreeMap<usize, Tensor>,
    moves_anchor: bool,
}

impl Parts {
    /// All of synchronisation number `sync` of a panorama of these windows.
    pub(crate) fn all(windows: &Windows, seed: u64, sync: u64) -> Self {
        Self { positions: windows.parts(seed, sync), moves_anchor: false }
    }

    /// Those of synchronisation number `sync` that are compared with the anchor; `None` if there is nothing to move.
    pub(crate) fn new(windows: &Windows, seed: u64, sync: u64) -> Option<Self> {
        let anchor = windows.position(windows.anchor());
        let mut positions = windows.parts(seed, sync);
        let all = positions.len();
        positions.retain(|position| *position != anchor);
        // The others do not reach into it, if it is one of them, unless an end has stopped one.
        let moves_anchor = all == positions.len() || positions.iter().any(|at| windows.overlap(*at, anchor));
        (!positions.is_empty()).then_some(Self { positions, moves_anchor })
    }

    /// How many gradients it takes.
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether the latents of the anchor change, where it is what the others are compared with.
    pub(crate) fn moves_anchor(&self) -> bool {
        self.moves_anchor
    }
}

impl Canvas {
    /// The synchronisation of these parts of a panorama.
    pub(crate) fn new(windows: &Windows, parts: Parts) -> Self {
        let Parts { positions, moves_anchor } = parts;
        Self { parts: windows.at(positions), gradients: BTreeMap::new(), moves_anchor }
    }

    /// How many gradients it takes.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether the latents of the anchor change.
    pub(crate) fn moves_anchor(&self) -> bool {
        self.moves_anchor
    }

    /// The column at which part `i` begins.
    pub(crate) fn column(&self, i: usize) -> i64 {
        self.parts.position(i).1
    }

    /// The latents of part `i`.
    pub(crate) fn cut(&self, panorama: &Tensor, i: usize) -> Tensor {
        self.parts.cut(panorama, i)
    }

    /// Keeps the gradient of part `i`.
    pub(crate) fn put(&mut self, i: usize, gradient: Tensor) {
        self.gradients.insert(i, gradient);
    }

    /// The panorama, moved against all gradients by a step size; where parts overlap, by their mean.
    pub(crate) fn moved(&self, panorama: &Tensor, step_size: f64) -> Tensor {
        let gradients: Vec<&Tensor> = self.gradients.values().collect();
        panorama - self.parts.fuse(&Tensor::cat(&gradients, 0)) * step_size
    }
}

#[cfg(test)]
mod tests {
    use geometry::{Ends, Geometry};
    use tch::{Device, Kind};

    use super::*;
    use crate::settings::Blend;

    fn windows(width: u32, ends: Ends) -> Windows {
        Windows::new(Geometry::default().layout((width, 512), 16, ends), Blend::Even, Device::Cpu)
    }

    #[test]
    fn the_anchor_is_not_compared_with_itself() {
        // One part fits, and both windows are within its reach: at times it is the anchor.
        let windows = windows(640, Ends::Open);
        let lengths: Vec<usize> =
            (0..64).map(|sync| Parts::new(&windows, 2, sync).map_or(0, |parts| parts.len())).collect();
        assert!(lengths.contains(&0) && lengths.contains(&1), "{lengths:?}");
    }

    #[test]
    fn the_panorama_moves_by_the_step_where_there_are_parts() {
        for ends in [Ends::Open, Ends::Ring] {
            let windows = windows(2048, ends);
            let parts = Parts::new(&windows, 7, 0).unwrap();
            assert!(parts.len() == 4 && parts.moves_anchor());
            let mut canvas = Canvas::new(&windows, parts);
            let panorama = Tensor::zeros([1, 4, 64, 256], (Kind::Float, Device::Cpu));
            for part in 0..canvas.len() {
                let gradient = canvas.cut(&panorama, part) + 1.0;
                canvas.put(part, gradient);
            }
            let moved = canvas.moved(&panorama, 0.5);
            let still = moved.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
            let there = moved.eq(-0.5).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
            // Half a window at one end is reached the next time only.
            let most = if ends == Ends::Ring { 0.0 } else { 0.125 };
            assert!(still <= most && (still + there - 1.0).abs() < 1e-12, "{ends:?}: {still} {there}");
        }
    }
}
