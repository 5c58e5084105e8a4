//! The scheduler file of a model as a multistep scheduler: which timesteps, which noise levels, which formulas.

use super::solver::{Rule, Solver};
use super::{Schedule, Scheduler};
use crate::ddim::{Ddim, Spacing, Step};
use crate::load::config::Config;
use crate::load::{Bundle, Result};
use crate::prediction::Prediction;

/// What the class takes for the signal's share where a rescaled schedule has none left, so that its noise level is
/// finite.
const MIN_ALPHA: f64 = 1.0 / (1 << 24) as f64;

/// A multistep scheduler of a model.
pub struct Multistep {
    /// The noise level `sqrt((1 - alpha) / alpha)` of each training step.
    sigmas: Vec<f64>,
    /// The noise level after the last step.
    final_sigma: f64,
    prediction: Prediction,
    spacing: Spacing,
    steps_offset: i64,
    /// The training steps that are not too noisy to begin at.
    usable: i64,
    rule: Rule,
}

impl Multistep {
    /// Reads the keys of `scheduler/scheduler_config.json` that [`Ddim::load`] leaves to others.
    ///
    /// # Errors
    /// If they ask for what is not supported.
    pub(crate) fn load(bundle: &Bundle, ddim: &Ddim, scheduler: Scheduler) -> Result<Self> {
        let (mut c, _) = Config::read_any(bundle, "scheduler/scheduler_config.json")?;
        let mut alphas = ddim.alphas.clone();
        if c.or("rescale_betas_zero_snr", false)
            && let Some(last) = alphas.last_mut()
        {
            *last = MIN_ALPHA;
        }
        let sigmas: Vec<f64> = alphas.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect();
        let spacing = match c.take::<String>("timestep_spacing").as_deref() {
            Some("leading") => Spacing::Leading,
            Some("trailing") => Spacing::Trailing,
            _ => Spacing::Linspace,
        };
        let solver_type = c.take::<String>("solver_type");
        let order = c.or("solver_order", 2);
        if !matches!(order, 1 | 2) {
            c.problem(format!("`solver_order` is `{order}`; supported: `1`, `2`"));
        }
        let final_sigma = match c.or("final_sigmas_type", "zero".to_owned()).as_str() {
            "sigma_min" => sigmas[0],
            other => {
                if other != "zero" {
                    c.problem(format!("`final_sigmas_type` is `{other}`; supported: `zero`, `sigma_min`"));
                }
                0.0
            }
        };
        let mut least_lambda = f64::NEG_INFINITY;
        let rule = if scheduler == Scheduler::UniPc {
            c.only("predict_x0", true);
            c.only("lower_order_final", true);
            c.only("disable_corrector", serde_json::json!([]));
            c.none(&["solver_p", "shift_terminal"]);
            Rule::UniPc { second: order == 2, b1: solver_type.as_deref() == Some("bh1") }
        } else {
            c.only("algorithm_type", "dpmsolver++");
            least_lambda = c.or("lambda_min_clipped", least_lambda);
            Rule::DpmPp {
                second: order == 2,
                heun: solver_type.as_deref() == Some("heun"),
                euler_at_final: c.or("euler_at_final", false),
                lower_order_final: c.or("lower_order_final", true),
            }
        };
        for key in [
            "thresholding",
            "use_beta_sigmas",
            "use_dynamic_shifting",
            "use_exponential_sigmas",
            "use_flow_sigmas",
            "use_karras_sigmas",
            "use_lu_lambdas",
        ] {
            c.only(key, false);
        }
        let steps_offset = c.or("steps_offset", 0);
        c.end()?;
        let too_noisy = sigmas.iter().filter(|sigma| -sigma.ln() < least_lambda).count();
        let usable = (sigmas.len() - too_noisy).max(1) as i64;
        Ok(Self { sigmas, final_sigma, prediction: ddim.prediction, spacing, steps_offset, usable, rule })
    }

    /// The steps from noise to picture, `n` of them, and what takes them.
    pub fn schedule(&self, n: u32) -> Schedule {
        let timesteps = self.timesteps(i64::from(n.max(1)));
        let sigma = |t: i64| self.sigmas[t.clamp(0, self.sigmas.len() as i64 - 1) as usize];
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| sigma(t)).collect();
        sigmas.push(self.final_sigma);
        let alpha = |sigma: f64| 1.0 / (sigma * sigma + 1.0);
        let steps = timesteps
            .iter()
            .zip(sigmas.windows(2))
            .map(|(&timestep, levels)| Step {
                timestep,
                alpha: alpha(levels[0]),
                alpha_next: alpha(levels[1]),
                prediction: self.prediction,
                clip: None,
            })
            .collect();
        Schedule { steps, solver: Some(Solver::new(self.rule, &sigmas)) }
    }

    /// `n` timesteps. For four numbers of trailing steps (61, 103, 121, 122) diffusers adds a timestep -1, by a
    /// rounding error; here there are as many as were asked for. Halves are rounded to even.
    fn timesteps(&self, n: i64) -> Vec<i64> {
        let (training, usable) = (self.sigmas.len() as f64, self.usable);
        match self.spacing {
            Spacing::Leading => (1..=n).rev().map(|i| i * (usable / (n + 1)) + self.steps_offset).collect(),
            Spacing::Trailing => {
                let stride = training / n as f64;
                let t = |i: i64| (usable as f64 - i as f64 * stride).round_ties_even() as i64 - 1;
                (0..n).map(t).take_while(|&t| t >= 0).collect()
            }
            Spacing::Linspace => {
                let stride = (usable - 1) as f64 / n as f64;
                (1..=n).rev().map(|i| (i as f64 * stride).round_ties_even() as i64).collect()
            }
        }
    }
}
