//! What a UNet predicts, where nobody says so, by asking it.
//!
//! Where all is noise, a UNet that predicts the noise gives back what it is shown; one that predicts velocity gives
//! what to take away from it. AUTOMATIC1111's programs ask in the same way, of a constant instead of noise.

use tch::{Kind, Tensor};

use crate::load::bundle::Bundle;
use crate::load::error::Result;
use crate::placement::Placement;
use crate::prediction::Prediction;
use crate::text_encoder::TextEncoder;
use crate::tokenizer::Tokenizer;
use crate::unet::{Text, Time, UNet};

/// Below this, on average, the answer less the question is that of a velocity.
const LIMIT: f64 = -1.0;

impl Bundle {
    /// Finds out what a checkpoint in one file predicts, if only its UNet can tell. Before this, noise is assumed.
    ///
    /// # Errors
    /// If the UNet or the text encoder cannot be loaded.
    pub fn settle(&self, placement: Placement) -> Result<()> {
        let Some(file) = self.single().filter(|file| file.needs_probe()) else { return Ok(()) };
        let _no_grad = tch::no_grad_guard();
        let ids = Tokenizer::load(self)?.encode("");
        let embedding = TextEncoder::load(self, placement)?.forward(&ids);
        let unet = UNet::load(self, placement)?;
        let (keys, times) = (unet.text_keys(&embedding), unet.time_table(&[999]));
        let question = Tensor::full([1, unet.channels, 8, 8], 0.5, (Kind::Float, placement.device));
        let (time, text) = (Time::of_batch(&[(&times, 0)]), Text::of_batch(&[vec![&keys]]));
        let answer = unet.forward(&question, &time, &text);
        let mean = (answer - question).mean(Kind::Float).double_value(&[]);
        file.probed(if mean < LIMIT { Prediction::Velocity } else { Prediction::Epsilon });
        Ok(())
    }
}
