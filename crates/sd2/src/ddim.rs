//! DDIM with eta 0: the model's prediction to the next latents, by diffusers' `DDIMScheduler`.
//!
//! Song et al., "Denoising Diffusion Implicit Models", arXiv 2010.02502, formula 12; `v_prediction` is that of Salimans
//! and Ho, arXiv 2202.00512.

use tch::{Device, Kind, Tensor};

use crate::load::config::Config;
use crate::load::{Bundle, Result};

/// What the UNet predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity, `sqrt(a) * noise - sqrt(1 - a) * original`.
    Velocity,
}

#[derive(Clone, Copy)]
enum Spacing {
    Leading,
    Trailing,
    Linspace,
}

/// The noise schedule of a model.
pub struct Ddim {
    /// Cumulative products of `1 - beta`, one for each training step.
    alphas: Vec<f64>,
    /// The alpha after the last step.
    final_alpha: f64,
    prediction: Prediction,
    clip: Option<f64>,
    spacing: Spacing,
    steps_offset: i64,
}

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The training timestep, an input of the UNet.
    pub timestep: i64,
    /// The share of the signal in the variance of the latents before the step.
    alpha: f64,
    /// The same after it.
    alpha_next: f64,
    prediction: Prediction,
    clip: Option<f64>,
}

impl Ddim {
    /// Reads `scheduler/scheduler_config.json`. As in diffusers, the configuration of a PNDM scheduler works, too.
    ///
    /// # Errors
    /// If it is malformed or asks for something unsupported.
    pub fn load(bundle: &Bundle) -> Result<Self> {
        let mut c = Config::read(bundle, "scheduler/scheduler_config.json", &["DDIMScheduler", "PNDMScheduler"])?;
        let training_steps = c.size("num_train_timesteps", Some(1000));
        let (start, end) = (c.or("beta_start", 0.0001), c.or("beta_end", 0.02));
        let betas = |from, to| Tensor::linspace(from, to, training_steps, (Kind::Float, Device::Cpu));
        let betas = match c.or("beta_schedule", "linear".to_owned()).as_str() {
            "scaled_linear" => betas(f64::sqrt(start), f64::sqrt(end)).square(),
            other => {
                if other != "linear" {
                    c.problem(format!("`beta_schedule` is `{other}`; supported: `scaled_linear`, `linear`"));
                }
                betas(start, end)
            }
        };
        // In fp32, as diffusers computes it.
        let betas = if c.or("rescale_betas_zero_snr", false) { without_last_signal(&betas) } else { betas };
        let alphas = Vec::<f64>::try_from((-betas + 1.0).cumprod(0, Kind::Float).to_kind(Kind::Double))
            .expect("a tensor of doubles is a vector of doubles");
        let prediction = match c.or("prediction_type", "epsilon".to_owned()).as_str() {
            "epsilon" => Prediction::Epsilon,
            "v_prediction" => Prediction::Velocity,
            other => {
                c.problem(format!("`prediction_type` is `{other}`; supported: `epsilon`, `v_prediction`"));
                Prediction::Epsilon
            }
        };
        let spacing = match c.or("timestep_spacing", "leading".to_owned()).as_str() {
            "leading" => Spacing::Leading,
            "trailing" => Spacing::Trailing,
            "linspace" => Spacing::Linspace,
            other => {
                c.problem(format!("`timestep_spacing` is `{other}`; supported: `leading`, `trailing`, `linspace`"));
                Spacing::Leading
            }
        };
        if prediction == Prediction::Epsilon && alphas.last() == Some(&0.0) {
            let problem = "`rescale_betas_zero_snr` needs `prediction_type` to be `v_prediction`: where the latents \
                           are pure noise, predicting the noise says nothing about the picture";
            c.problem(problem.to_owned());
        }
        let clip_range = c.or("clip_sample_range", 1.0);
        let scheduler = Self {
            final_alpha: if c.or("set_alpha_to_one", true) { 1.0 } else { alphas[0] },
            alphas,
            prediction,
            clip: c.or("clip_sample", true).then_some(clip_range),
            spacing,
            steps_offset: c.or("steps_offset", 0),
        };
        c.none(&["trained_betas"]);
        c.only("thresholding", false);
        // They belong to thresholding and to the PNDM scheduler.
        c.ignore(&["dynamic_thresholding_ratio", "sample_max_value", "skip_prk_steps"]);
        c.finish()?;
        Ok(scheduler)
    }

    /// The steps from noise to picture, `n` of them.
    pub fn schedule(&self, n: u32) -> Vec<Step> {
        let (n, training) = (i64::from(n.max(1)), self.alphas.len() as i64);
        let stride = training / n;
        // Halves are rounded to even, as by NumPy.
        let timesteps: Vec<i64> = match self.spacing {
            Spacing::Leading => (0..n).rev().map(|i| i * stride + self.steps_offset).collect(),
            Spacing::Trailing => {
                let stride = training as f64 / n as f64;
                (0..n).map(|i| (training as f64 - i as f64 * stride).round_ties_even() as i64 - 1).collect()
            }
            Spacing::Linspace => {
                let stride = if n > 1 { (training - 1) as f64 / (n - 1) as f64 } else { 0.0 };
                (0..n).rev().map(|i| (i as f64 * stride).round_ties_even() as i64).collect()
            }
        };
        let alpha = |t: i64| if t < 0 { self.final_alpha } else { self.alphas[t.min(training - 1) as usize] };
        timesteps
            .into_iter()
            .map(|timestep| Step {
                timestep,
                alpha: alpha(timestep),
                alpha_next: alpha(timestep - stride),
                prediction: self.prediction,
                clip: self.clip,
            })
            .collect()
    }
}

impl Step {
    /// The original sample, as predicted from the latents and the UNet's output.
    pub fn original(&self, latents: &Tensor, output: &Tensor) -> Tensor {
        let (signal, noise) = (self.alpha.sqrt(), (1.0 - self.alpha).sqrt());
        let original = match self.prediction {
            Prediction::Epsilon => (latents - output * noise) / signal,
            Prediction::Velocity => latents * signal - output * noise,
        };
        match self.clip {
            Some(range) => original.clamp(-range, range),
            None => original,
        }
    }

    /// The latents after the step. Both tensors are fp32 of the same shape.
    pub fn next(&self, latents: &Tensor, output: &Tensor) -> Tensor {
        let (signal, noise) = (self.alpha.sqrt(), (1.0 - self.alpha).sqrt());
        let epsilon = match self.prediction {
            Prediction::Epsilon => output.shallow_clone(),
            Prediction::Velocity => output * signal + latents * noise,
        };
        self.original(latents, output) * self.alpha_next.sqrt() + epsilon * (1.0 - self.alpha_next).sqrt()
    }
}

/// Rescales the betas so that the last step leaves no signal: Lin et al., "Common Diffusion Noise Schedules and Sample
/// Steps are Flawed", arXiv 2305.08891, algorithm 1. By way of the products and back to betas, to round as diffusers
/// does.
fn without_last_signal(betas: &Tensor) -> Tensor {
    let roots = (-betas + 1.0).cumprod(0, Kind::Float).sqrt();
    let (first, last) = (roots.get(0), roots.get(-1));
    let products = ((roots - &last) * (&first / (&first - &last))).square();
    let n = products.size1().expect("one number a step");
    let alphas =
        Tensor::cat(&[products.narrow(0, 0, 1), products.narrow(0, 1, n - 1) / products.narrow(0, 0, n - 1)], 0);
    -alphas + 1.0
}

#[cfg(test)]
mod tests {
    use fixtures::{BUNDLES, Cases, assert_close, path};

    use super::*;

    #[test]
    fn alphas_match_diffusers() {
        for name in BUNDLES {
            let bundle = Bundle::open(path(&format!("bundles/{name}"))).unwrap();
            let (ddim, cases) = (Ddim::load(&bundle).unwrap(), Cases::of(name));
            let alphas = Tensor::from_slice(&ddim.alphas).to_kind(Kind::Float);
            assert_close(&format!("{name} alphas"), &alphas, cases.top("alphas_cumprod"));
            assert!((ddim.final_alpha - cases.number("final_alpha_cumprod")).abs() < 1e-6);
        }
    }
}
