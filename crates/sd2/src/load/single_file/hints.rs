//! What no shape tells: whether a model predicts noise or velocity, and for which size of pictures it was made.
//!
//! In this order: what is said on the command line, the metadata of the file, marker tensors, the configuration
//! `NAME.yaml` beside the file, and a probe of the UNet.

use super::yaml::value_of;
use super::{SingleFile, TextKind};
use crate::load::error::Result;
use crate::prediction::Prediction;

impl SingleFile {
    /// What the UNet predicts, and how that is known; nothing where only a probe of it can tell.
    pub(super) fn told_prediction(&self) -> Option<(Prediction, String)> {
        if let Some(prediction) = self.said.prediction {
            return Some((prediction, "as was said".to_owned()));
        }
        for key in ["modelspec.prediction_type", "ss_v_parameterization", "prediction_type", "parameterization"] {
            if let Some(prediction) = self.metadata.get(key).and_then(|value| read(key, value)) {
                return Some((prediction, format!("by `{key}` in its metadata")));
            }
        }
        for marker in ["v_pred", "ztsnr"] {
            if self.has(marker) {
                return Some((Prediction::Velocity, format!("by its tensor `{marker}`")));
            }
        }
        let yaml = self.yaml_text.as_deref().and_then(|text| value_of(text, "parameterization"))?;
        let prediction = match yaml {
            "v" => Prediction::Velocity,
            "eps" => Prediction::Epsilon,
            _ => return None,
        };
        Some((prediction, "by the `.yaml` beside it".to_owned()))
    }

    /// The side of a window in latents: what is said, what the metadata say, or that of the family.
    pub(super) fn window(&self) -> i64 {
        let side = |text: &String| {
            let (width, height) = text.split_once(['x', 'X'])?;
            let side: i64 = width.trim().parse().ok()?;
            (height.trim().parse() == Ok(side) && (256..=2048).contains(&side) && side % 64 == 0).then_some(side / 8)
        };
        let usual = || match (self.prediction(), self.text_kind()) {
            (Prediction::Velocity, Ok(TextKind::OpenClip)) => 96,
            _ => 64,
        };
        let told = || self.metadata.get("modelspec.resolution").and_then(side);
        self.said.window.or_else(told).unwrap_or_else(usual)
    }

    /// Whether the last step of training was all noise.
    pub(super) fn ends_in_noise(&self) -> Result<bool> {
        if self.has("ztsnr") {
            return Ok(true);
        }
        let Some(alphas) = self.values("alphas_cumprod")? else { return Ok(false) };
        Ok(alphas.last() == Some(&0.0))
    }

    /// A number of the configuration beside the file.
    pub(super) fn yaml(&self, key: &str) -> Option<i64> {
        value_of(self.yaml_text.as_deref()?, key)?.parse().ok()
    }
}

fn read(key: &str, value: &str) -> Option<Prediction> {
    match value.to_ascii_lowercase().as_str() {
        "v" | "v_prediction" | "v-prediction" | "v_pred" | "vpred" | "velocity" => Some(Prediction::Velocity),
        "epsilon" | "eps" | "noise" => Some(Prediction::Epsilon),
        "true" if key == "ss_v_parameterization" => Some(Prediction::Velocity),
        "false" if key == "ss_v_parameterization" => Some(Prediction::Epsilon),
        _ => None,
    }
}
