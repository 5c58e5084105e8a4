//! What a UNet predicts.

use std::str::FromStr;

/// What the UNet predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity, `sqrt(a) * noise - sqrt(1 - a) * original`.
    Velocity,
}

impl FromStr for Prediction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "epsilon" => Ok(Self::Epsilon),
            "v" | "v_prediction" => Ok(Self::Velocity),
            _ => Err(format!("`{text}` is not what a model predicts; use `epsilon` or `v`")),
        }
    }
}
