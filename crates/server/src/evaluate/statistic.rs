//! Mean and deviation of a figure over pictures.

use serde::Serialize;

/// Of the pictures that have the figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Statistic {
    /// How many they are.
    pub(super) pictures: usize,
    pub(super) mean: f64,
    /// The standard deviation of the sample; `None` of a single picture.
    pub(super) deviation: Option<f64>,
}

impl Statistic {
    /// `None` if there are no values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self { pictures: n, mean, deviation: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_the_sample() {
        assert_eq!(Statistic::of([]), None);
        assert_eq!(Statistic::of([2.0]), Some(Statistic { pictures: 1, mean: 2.0, deviation: None }));
        let of = Statistic::of([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((of.pictures, of.mean), (8, 5.0));
        assert!((of.deviation.unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
    }
}
