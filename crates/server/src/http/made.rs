//! A prediction by its id and when it was made: what links and names of pictures and streams are of, so that those of
//! one do not open what has its id later.

use std::fmt;

use prediction::Prediction;

/// As text, it is `MICROSECONDS/ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) id: String,
    pub(super) micros: i64,
}

impl Made {
    pub(super) fn of(prediction: &Prediction) -> Self {
        Self { id: prediction.id.clone(), micros: prediction.created_at.micros() }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let (micros, id) = text.split_once('/')?;
        Some(Self { id: id.to_owned(), micros: micros.parse().ok()? })
    }

    /// Whether this is the prediction.
    pub(super) fn is(&self, prediction: &Prediction) -> bool {
        self.id == prediction.id && self.micros == prediction.created_at.micros()
    }
}

impl fmt::Display for Made {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.micros, self.id)
    }
}
