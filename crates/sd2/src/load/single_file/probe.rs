//! What a UNet predicts, where nobody says so, by asking it.
//!
//! It is shown noise. Where the noise is nearly all there is, at the last timestep, a UNet that predicts the noise
//! gives back what it is shown, and one that predicts velocity the picture that it imagines, negated: the answer has
//! nothing to do with the noise. In the middle, what is shown is a uniform picture under noise, and both answer with a
//! multiple of the noise. An answer that has nothing to do with the noise there either is that of weights that were
//! never trained, or for something else.

use tch::{Device, Kind, Tensor};

use crate::load::bundle::Bundle;
use crate::load::error::Result;
use crate::placement::Placement;
use crate::prediction::Prediction;
use crate::text_encoder::TextEncoder;
use crate::tokenizer::Tokenizer;
use crate::unet::{Text, TextKeys, Time, UNet};

/// The last timestep, and one in the middle.
const TIMESTEPS: [i64; 2] = [999, 250];

/// Side of the noise, in latents.
const SIDE: i64 = 32;

/// A correlation with the noise from which on an answer consists of it, and one up to which it does not.
const HIGH: f64 = 0.7;
const LOW: f64 = 0.5;

impl Bundle {
    /// Finds out what a checkpoint in one file predicts, if only its UNet can tell. Before this, and where it cannot
    /// tell either, noise is assumed.
    ///
    /// # Errors
    /// If the UNet or the text encoder cannot be loaded.
    pub fn settle(&self, placement: Placement) -> Result<()> {
        let Some(file) = self.single().filter(|file| file.needs_probe()) else { return Ok(()) };
        let _no_grad = tch::no_grad_guard();
        let ids = Tokenizer::load(self)?.encode("");
        let embedding = TextEncoder::load(self, placement)?.forward(&ids);
        let unet = UNet::load(self, placement)?;
        file.probed(prediction(correlations(&unet, &unet.text_keys(&embedding), placement.device)));
        Ok(())
    }
}

/// What a UNet predicts whose answers correlate so with the noise, if that tells.
fn prediction([last, middle]: [f64; 2]) -> Option<Prediction> {
    match (last, middle) {
        (HIGH.., _) => Some(Prediction::Epsilon),
        (..=LOW, HIGH..) => Some(Prediction::Velocity),
        _ => None,
    }
}

/// The correlation of noise and answer at each timestep.
fn correlations(unet: &UNet, text: &TextKeys, device: Device) -> [f64; 2] {
    let noise = noise(unet.channels * SIDE * SIDE).view([1, unet.channels, SIDE, SIDE]).to_device(device);
    let times = unet.time_table(&TIMESTEPS);
    let (time, text) = (Time::of_batch(&[(&times, 0), (&times, 1)]), Text::of_batch(&[vec![text, text]]));
    let answers = unet.forward(&Tensor::cat(&[&noise, &noise], 0), &time, &text);
    let centred = |x: &Tensor| {
        let x = x.flatten(0, -1).to_kind(Kind::Double);
        &x - x.mean(Kind::Double)
    };
    let noise = centred(&noise);
    [0, 1].map(|row| {
        let answer = centred(&answers.get(row));
        noise.dot(&answer).double_value(&[]) / (noise.norm() * answer.norm()).double_value(&[])
    })
}

/// Numbers that are distributed almost normally, the same in every process.
fn noise(count: i64) -> Tensor {
    let mut state: u64 = 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    // The variance of twelve uniform numbers is 1.
    let numbers: Vec<f32> = (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
    Tensor::from_slice(&numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_correlations_tell() {
        for (correlations, expected) in [
            ([0.99, 0.99], Some(Prediction::Epsilon)),
            ([0.8, 0.6], Some(Prediction::Epsilon)),
            ([0.05, 0.97], Some(Prediction::Velocity)),
            ([-0.2, 0.8], Some(Prediction::Velocity)),
            // Between the two, never trained, and not a number.
            ([0.6, 0.9], None),
            ([0.05, 0.05], None),
            ([f64::NAN, f64::NAN], None),
        ] {
            assert_eq!(prediction(correlations), expected, "{correlations:?}");
        }
    }

    /// The demo model was trained to predict velocity.
    #[test]
    fn a_trained_model_tells() {
        let (bundle, placement) = (Bundle::demo(), Placement::new(Device::Cpu, Kind::Float));
        let embedding =
            TextEncoder::load(&bundle, placement).unwrap().forward(&Tokenizer::load(&bundle).unwrap().encode(""));
        for kind in [Kind::Float, Kind::BFloat16] {
            let unet = UNet::load(&bundle, Placement::new(Device::Cpu, kind)).unwrap();
            let found = correlations(&unet, &unet.text_keys(&embedding.to_kind(kind)), Device::Cpu);
            assert_eq!(prediction(found), Some(Prediction::Velocity), "{kind:?}: {found:?}");
        }
    }
}
