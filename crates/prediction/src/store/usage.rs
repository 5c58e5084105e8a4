//! What was drawn for each name, counted as predictions end. It outlives them.

use super::record::Record;
use crate::wire::Status;

/// What was drawn for the tokens of a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// The name; empty for tokens without one, and where no token is needed.
    pub name: String,
    /// Predictions that have ended, in whatever way.
    pub predictions: u64,
    /// Those of them that have their pictures.
    pub succeeded: u64,
    /// Pixels of these pictures, in millions.
    pub megapixels: f64,
    /// Seconds that workers had them, successful or not.
    pub seconds: f64,
}

impl Usage {
    /// That of a prediction as it has ended.
    pub(super) fn of(name: &str, record: &Record) -> Self {
        let prediction = &record.prediction;
        let succeeded = prediction.status == Status::Succeeded;
        let input = &prediction.input;
        let pixels = u64::from(input.width) * u64::from(input.height) * u64::from(input.num_outputs);
        Self {
            name: name.to_owned(),
            predictions: 1,
            succeeded: succeeded.into(),
            megapixels: if succeeded { pixels as f64 / 1e6 } else { 0.0 },
            seconds: prediction.metrics.predict_time.unwrap_or(0.0),
        }
    }

    /// Adds that of another prediction.
    pub(super) fn add(&mut self, other: &Self) {
        self.predictions += other.predictions;
        self.succeeded += other.succeeded;
        self.megapixels += other.megapixels;
        self.seconds += other.seconds;
    }
}
