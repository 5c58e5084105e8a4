//! The timestep as the UNet sees it: sinusoids, an MLP, and one projection for each resnet.
//!
//! None of it depends on the latents, so a job computes it once for all its steps.

use tch::{Device, Kind, Tensor};

use super::config::Settings;
use crate::load::weights::Scope;
use crate::nn::layers::{Linear, silu};

/// Sinusoids of the timestep and the MLP after them.
pub(crate) struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    width: i64,
    flip_sin_to_cos: bool,
    freq_shift: f64,
}

impl TimeEmbedding {
    pub(crate) fn load(root: &Scope, settings: &Settings) -> Self {
        let (scope, width) = (root.at("time_embedding"), settings.levels[0].channels);
        Self {
            linear_1: Linear::load(&scope.at("linear_1"), width, 4 * width),
            linear_2: Linear::load(&scope.at("linear_2"), 4 * width, 4 * width),
            width,
            flip_sin_to_cos: settings.flip_sin_to_cos,
            freq_shift: settings.freq_shift,
        }
    }

    /// `n` timesteps to `[n, 4 * width]` after SiLU, in fp32, which is cheap, because every resnet depends on it.
    pub(crate) fn forward(&self, timesteps: &[i64], device: Device) -> Tensor {
        let half = self.width / 2;
        let exponent = Tensor::arange(half, (Kind::Float, device)) * (-f64::ln(10_000.0));
        let frequencies = (exponent / (half as f64 - self.freq_shift)).exp();
        let angles = Tensor::from_slice(timesteps).to_device(device).to_kind(Kind::Float).unsqueeze(1)
            * frequencies.unsqueeze(0);
        let (sin, cos) = (angles.sin(), angles.cos());
        let mut sinusoids = if self.flip_sin_to_cos { vec![cos, sin] } else { vec![sin, cos] };
        if self.width % 2 == 1 {
            sinusoids.push(Tensor::zeros([timesteps.len() as i64, 1], (Kind::Float, device)));
        }
        let hidden = silu(self.linear_1.forward_f32(&Tensor::cat(&sinusoids, 1)));
        silu(self.linear_2.forward_f32(&hidden))
    }
}

/// The projections of some timesteps: for each resnet `[timesteps, channels]`, the bias of its first convolution
/// included.
pub struct TimeTable(pub(super) Vec<Tensor>);

/// The projections of the timesteps of one batch.
pub enum Time<'a> {
    /// All windows of the batch are at one timestep: a row of a table.
    Same(&'a TimeTable, i64),
    /// Each window has its own: for each resnet `[windows, channels]`.
    Each(Vec<Tensor>),
}

impl<'a> Time<'a> {
    /// The rows of the tables, one for each window of a batch.
    pub fn of_batch(rows: &[(&'a TimeTable, i64)]) -> Self {
        let (table, row) = rows[0];
        if rows.iter().all(|&(other, at)| std::ptr::eq(table, other) && at == row) {
            return Self::Same(table, row);
        }
        let resnet =
            |i: usize| Tensor::cat(&rows.iter().map(|(table, at)| table.0[i].narrow(0, *at, 1)).collect::<Vec<_>>(), 0);
        Self::Each((0..table.0.len()).map(resnet).collect())
    }
}
