//! What tasks cost on this device, by measurement.
//!
//! The [computed](geometry::Prices) price of a task counts multiplications. How long they take depends on the device,
//! the model, the kind of task and the width of its batch, so the time of every batch is measured, and a running mean
//! kept for each kind and width of how long a unit of the computed price takes.

use std::collections::HashMap;

use panorama::Stage;

/// How many of the last batches a mean is of, about.
const MEMORY: f64 = 16.0;

/// How far a measured price may be from the one before it, and the first of a kind from what was assumed: other work on
/// the machine makes a batch take several times as long, and a picture is decoded once a job only.
const MAX_STEP: f64 = 2.0;
const MAX_FIRST_STEP: f64 = 4.0;

/// Measured prices, in nanoseconds.
pub(crate) struct Prices {
    /// Nanoseconds of a computed unit where nothing of a kind was measured.
    assumed: f64,
    kinds: HashMap<Kind, Vec<Measured>>,
}

/// Tasks that go in one batch cost the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) stage: Stage,
    /// Guidance branches.
    pub(crate) branches: usize,
}

struct Measured {
    width: usize,
    /// Nanoseconds of a computed unit.
    mean: f64,
    batches: f64,
}

impl Prices {
    /// Before anything was measured: a task of this computed price takes these seconds.
    pub(crate) fn assuming(price: u64, seconds: f64) -> Self {
        Self { assumed: nanoseconds(seconds) / price.max(1) as f64, kinds: HashMap::new() }
    }

    /// The same from now on.
    pub(crate) fn assume(&mut self, price: u64, seconds: f64) {
        self.assumed = Self::assuming(price, seconds).assumed;
    }

    /// A batch of `width` tasks, with a computed price of `price` each, took these seconds.
    pub(crate) fn record(&mut self, kind: Kind, width: usize, price: u64, seconds: f64) {
        let unit = nanoseconds(seconds) / (width as f64 * price.max(1) as f64);
        let first = unit.clamp(self.assumed / MAX_FIRST_STEP, self.assumed * MAX_FIRST_STEP);
        let widths = self.kinds.entry(kind).or_default();
        match widths.iter_mut().find(|measured| measured.width == width) {
            Some(measured) => {
                measured.batches += 1.0;
                let unit = unit.clamp(measured.mean / MAX_STEP, measured.mean * MAX_STEP);
                measured.mean += (unit - measured.mean) / measured.batches.min(MEMORY);
            }
            None => widths.push(Measured { width, mean: first, batches: 1.0 }),
        }
    }

    /// What a task of a computed price costs in a batch of a width: as was measured at the nearest width.
    pub(crate) fn of(&self, kind: Kind, width: usize, price: u64) -> u64 {
        let widths = self.kinds.get(&kind).map_or(&[][..], Vec::as_slice);
        let nearest = widths.iter().min_by_key(|measured| (measured.width.abs_diff(width), measured.width));
        (nearest.map_or(self.assumed, |measured| measured.mean) * price as f64).max(1.0) as u64
    }
}

fn nanoseconds(seconds: f64) -> f64 {
    (seconds * 1e9).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENOISE: Kind = Kind { stage: Stage::Denoise, branches: 2 };
    const GRADIENT: Kind = Kind { stage: Stage::Synchronise, branches: 2 };

    #[test]
    fn what_was_not_measured_is_assumed() {
        let mut prices = Prices::assuming(800, 0.1);
        assert_eq!(prices.of(DENOISE, 1, 800), 100_000_000);
        assert_eq!(prices.of(GRADIENT, 3, 1600), 200_000_000);
        prices.record(GRADIENT, 1, 1600, 0.6);
        assert_eq!(prices.of(GRADIENT, 3, 1600), 600_000_000);
        assert_eq!(prices.of(Kind { branches: 1, ..GRADIENT }, 3, 1600), 200_000_000);
    }

    #[test]
    fn each_width_has_its_price() {
        let mut prices = Prices::assuming(800, 0.1);
        prices.record(DENOISE, 1, 800, 0.1);
        prices.record(DENOISE, 8, 800, 0.4);
        let milliseconds = |width| prices.of(DENOISE, width, 800) / 1_000_000;
        assert_eq!([1, 4, 5, 8, 26].map(milliseconds), [100, 100, 50, 50, 50]);
        // A picture of twice the size costs twice as much.
        assert_eq!(prices.of(DENOISE, 1, 1600), 200_000_000);
    }

    /// As on a machine where something else takes the processor for a moment.
    #[test]
    fn an_outlier_moves_a_price_little() {
        let mut prices = Prices::assuming(1, 1.0);
        prices.record(DENOISE, 1, 1, 100.0);
        assert_eq!(prices.of(DENOISE, 1, 1), 4_000_000_000);
        let mut prices = Prices::assuming(1, 1.0);
        (0..16).for_each(|_| prices.record(DENOISE, 1, 1, 1.0));
        prices.record(DENOISE, 1, 1, 100.0);
        assert!(prices.of(DENOISE, 1, 1) < 1_100_000_000);
    }

    #[test]
    fn a_mean_runs() {
        let mut prices = Prices::assuming(1, 1.0);
        prices.record(DENOISE, 1, 1, 1.0);
        prices.record(DENOISE, 1, 1, 2.0);
        assert_eq!(prices.of(DENOISE, 1, 1), 1_500_000_000);
        (0..200).for_each(|_| prices.record(DENOISE, 1, 1, 5.0));
        assert!(prices.of(DENOISE, 1, 1).abs_diff(5_000_000_000) < 1_000_000);
    }
}
