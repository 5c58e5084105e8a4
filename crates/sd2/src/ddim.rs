//! DDIM with eta 0: the model's prediction to the next latents, by diffusers' `DDIMScheduler`.
//!
//! Song et al., "Denoising Diffusion Implicit Models", arXiv 2010.02502, formula 12; `v_prediction` is that of Salimans
//! and Ho, arXiv 2202.00512.

use tch::{Device, Kind, Tensor};

use crate::load::config::Config;
use crate::load::{Bundle, Result};
pub use crate::prediction::Prediction;

/// Which of the training steps are taken.
#[derive(Clone, Copy)]
pub(crate) enum Spacing {
    Leading,
    Trailing,
    Linspace,
}

/// The noise schedule of a model.
pub struct Ddim {
    /// Cumulative products of `1 - beta`, one for each training step.
    pub(crate) alphas: Vec<f64>,
    /// The alpha after the last step.
    final_alpha: f64,
    pub(crate) prediction: Prediction,
    clip: Option<f64>,
    spacing: Spacing,
    steps_offset: i64,
    /// Keys of the configuration that only other samplers read.
    pub left_out: Vec<String>,
}

/// What the names of schedulers contain whose models are not of this kind, so that DDIM would draw nothing with them.
const FOREIGN_PROCESSES: [&str; 12] = [
    "Flow",
    "EDM",
    "VQDiffusion",
    "ScoreSde",
    "KarrasVe",
    "CMStochastic",
    "Amused",
    "Wuerstchen",
    "CogVideoX",
    "SCM",
    "Cosine",
    "RF",
];

/// Keys that diffusers' other samplers read and DDIM does not.
const FOREIGN_KEYS: [&str; 47] = [
    "algorithm_type",
    "clip_denoised",
    "corrector_order",
    "disable_corrector",
    "eta",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "gamma",
    "interpolation_type",
    "invert_sigmas",
    "lambda_min_clipped",
    "lower_order_final",
    "noise_sampler_seed",
    "original_inference_steps",
    "predict_x0",
    "predictor_order",
    "quantization_config",
    "rho",
    "s_churn",
    "s_max",
    "s_min",
    "s_noise",
    "shift_terminal",
    "sigma_data",
    "sigma_max",
    "sigma_min",
    "sigma_schedule",
    "skip_prk_steps",
    "snr_shift_scale",
    "solver_order",
    "solver_p",
    "solver_type",
    "stochastic_sampling",
    "t_max",
    "t_min",
    "tau_func",
    "time_shift_type",
    "timestep_scaling",
    "timestep_type",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The training timestep, an input of the UNet.
    pub timestep: i64,
    /// The share of the signal in the variance of the latents before the step.
    pub(crate) alpha: f64,
    /// The same after it.
    pub(crate) alpha_next: f64,
    pub(crate) prediction: Prediction,
    pub(crate) clip: Option<f64>,
}

impl Ddim {
    /// Reads `scheduler/scheduler_config.json` as `DDIMScheduler.from_pretrained` does: of the class of any sampler of
    /// diffused noise it takes the keys that are DDIM's own, and DDIM's defaults for the others.
    ///
    /// # Errors
    /// If it is malformed or asks for something unsupported.
    pub fn load(bundle: &Bundle) -> Result<Self> {
        let (mut c, class) = Config::read_any(bundle, "scheduler/scheduler_config.json")?;
        if let Some(class) = class.filter(|class| FOREIGN_PROCESSES.iter().any(|part| class.contains(part))) {
            c.problem(format!(
                "`_class_name` is `{class}`, which is not of a model that diffuses noise as Stable Diffusion does"
            ));
        }
        let left_out = c.drop_foreign(&FOREIGN_KEYS);
        let training_steps = c.size("num_train_timesteps", Some(1000));
        let (start, end) = (c.or("beta_start", 0.0001), c.or("beta_end", 0.02));
        let betas = |from, to| Tensor::linspace(from, to, training_steps, (Kind::Float, Device::Cpu));
        let schedule = c.or("beta_schedule", "linear".to_owned());
        let betas = match (c.take::<Vec<f64>>("trained_betas"), schedule.as_str()) {
            (Some(trained), _) if trained.len() as i64 == training_steps => {
                Tensor::from_slice(&trained).to_kind(Kind::Float)
            }
            (Some(trained), _) => {
                c.problem(format!("`trained_betas` has {} numbers for {training_steps} steps", trained.len()));
                betas(start, end)
            }
            (None, "scaled_linear") => betas(f64::sqrt(start), f64::sqrt(end)).square(),
            (None, "squaredcos_cap_v2") => cosine_betas(training_steps),
            (None, other) => {
                if other != "linear" {
                    c.problem(format!(
                        "`beta_schedule` is `{other}`; supported: `scaled_linear`, `linear`, `squaredcos_cap_v2`"
                    ));
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
            left_out,
        };
        c.only("thresholding", false);
        // Of thresholding.
        c.ignore(&["dynamic_thresholding_ratio", "sample_max_value"]);
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

    /// The latents before the step that an original sample has with this noise.
    pub fn noised(&self, original: &Tensor, noise: &Tensor) -> Tensor {
        original * self.alpha.sqrt() + noise * (1.0 - self.alpha).sqrt()
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

/// The betas of Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", arXiv 2102.09672.
fn cosine_betas(steps: i64) -> Tensor {
    let signal = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    let n = steps as f64;
    let betas: Vec<f64> =
        (0..steps).map(|i| (1.0 - signal((i + 1) as f64 / n) / signal(i as f64 / n)).min(0.999)).collect();
    Tensor::from_slice(&betas).to_kind(Kind::Float)
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
