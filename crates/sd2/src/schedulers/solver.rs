//! The formulas of the multistep solvers, and what they remember of the steps before.
//!
//! With `alpha` and `sigma` the shares of signal and noise and `lambda = ln(alpha / sigma)`, a step from level `s` to
//! level `t` of the latents `x` with predicted originals `d` has the length `h = lambda_t - lambda_s`, and is
//!
//! `x' = sigma_t / sigma_s * x - alpha_t * (e^-h - 1) * (d + slope / 2)`
//!
//! where `slope` is how much `d` changes in a step. DPM-Solver++ 2M extrapolates it from the step before. UniPC does
//! the same, and when it knows the next `d`, it takes the step once more with the slope that it has had: the corrector.
//!
//! All of it is linear in `x` and `d`. So a step of a canvas, with the means of the windows for `x` and `d`, is the
//! mean of the steps of windows that each have a memory of their own, as long as windows and their weights stay.

use tch::Tensor;

/// Which formulas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    UniPc {
        /// Whether it is of order 2 where it can.
        second: bool,
        /// B(h) is `h` and not `e^h - 1`.
        b1: bool,
    },
    DpmPp {
        second: bool,
        /// Heun's formula and not the midpoint's.
        heun: bool,
        euler_at_final: bool,
        lower_order_final: bool,
    },
}

/// Below how many steps `lower_order_final` is for.
const FEW_STEPS: usize = 15;

/// A noise level.
#[derive(Clone, Copy)]
struct Level {
    alpha: f64,
    sigma: f64,
    /// Infinite where there is no noise.
    lambda: f64,
}

impl Level {
    /// Of `sigma / alpha`.
    fn of(ratio: f64) -> Self {
        let alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
        Self { alpha, sigma: ratio * alpha, lambda: -ratio.ln() }
    }
}

/// Steps latents from level to level. Tensors are fp32 of one shape, that of the first step.
pub struct Solver {
    rule: Rule,
    /// One for each step, and the one after the last.
    levels: Vec<Level>,
    /// Steps that were taken.
    taken: usize,
    /// The originals that the last two steps predicted, the latest first.
    originals: [Option<Tensor>; 2],
    /// What UniPC corrects.
    last: Option<Last>,
}

/// The last step of UniPC.
struct Last {
    /// The latents before it.
    from: Tensor,
    /// Those after it.
    to: Tensor,
    /// Whether it was of order 2.
    second: bool,
}

impl Solver {
    pub(super) fn new(rule: Rule, ratios: &[f64]) -> Self {
        let levels = ratios.iter().map(|&ratio| Level::of(ratio)).collect();
        Self { rule, levels, taken: 0, originals: [None, None], last: None }
    }

    /// Leaves out the first steps: the next one is `step`, from 0, and has no step before it.
    pub fn begin_at(&mut self, step: usize) {
        self.taken = step;
    }

    /// The latents after the next step, from those before it and the originals that are predicted from them.
    ///
    /// The latents need not be those that the last step returned: what moved them meanwhile, such as the
    /// synchronisation, moves the corrected latents, too.
    pub fn next(&mut self, latents: &Tensor, original: Tensor) -> Tensor {
        let corrected = match &self.last {
            Some(last) => self.correct(last, &original) + (latents - &last.to),
            None => latents.shallow_clone(),
        };
        let second = self.is_second();
        let [latest, _] = std::mem::take(&mut self.originals);
        let next = self.extrapolate(&corrected, &original, latest.as_ref().filter(|_| second));
        if matches!(self.rule, Rule::UniPc { .. }) {
            self.last = Some(Last { from: corrected, to: next.shallow_clone(), second });
        }
        self.originals = [Some(original), latest];
        self.taken += 1;
        next
    }

    /// Whether the next step is of order 2.
    fn is_second(&self) -> bool {
        let (steps, i) = (self.levels.len() - 1, self.taken);
        let is_last = i + 1 == steps;
        self.originals[0].is_some()
            && match self.rule {
                Rule::UniPc { second, .. } => second && !is_last,
                Rule::DpmPp { second, euler_at_final, lower_order_final, .. } => {
                    let first_at_last =
                        euler_at_final || lower_order_final && steps < FEW_STEPS || self.levels[steps].sigma == 0.0;
                    second && !(is_last && first_at_last)
                }
            }
    }

    /// The step from here, with the original of the step before for order 2.
    fn extrapolate(&self, latents: &Tensor, original: &Tensor, before: Option<&Tensor>) -> Tensor {
        let (s, t) = (self.levels[self.taken], self.levels[self.taken + 1]);
        let h = t.lambda - s.lambda;
        let Some(before) = before else { return first_order(latents, original, s, t) };
        let slope = (original - before) * (h / (s.lambda - self.levels[self.taken - 1].lambda));
        let share = match self.rule {
            Rule::UniPc { b1: true, .. } => h / 2.0,
            Rule::DpmPp { heun: true, .. } => (-h).exp_m1() / h + 1.0,
            Rule::UniPc { .. } | Rule::DpmPp { .. } => -(-h).exp_m1() / 2.0,
        };
        first_order(latents, original, s, t) + slope * (t.alpha * share)
    }

    /// The last step once more, knowing the original that is predicted from where it led.
    fn correct(&self, last: &Last, original: &Tensor) -> Tensor {
        let (s, t) = (self.levels[self.taken - 1], self.levels[self.taken]);
        let h = t.lambda - s.lambda;
        let [latest, before] = &self.originals;
        let Some(latest) = latest else { return last.to.shallow_clone() };
        let plain = first_order(&last.from, latest, s, t);
        let b = if matches!(self.rule, Rule::UniPc { b1: true, .. }) { -h } else { (-h).exp_m1() };
        let Some(before) = before.as_ref().filter(|_| last.second) else {
            return plain - (original - latest) * (t.alpha * b / 2.0);
        };
        // The weights of both slopes solve a system of two equations: formula 9 of the paper.
        let ratio = (self.levels[self.taken - 2].lambda - s.lambda) / h;
        let phi2 = (-h).exp_m1() / -h - 1.0;
        let phi3 = phi2 / -h - 0.5;
        let (b1, b2) = (phi2 / b, 2.0 * phi3 / b);
        let behind = (b1 - b2) / (1.0 - ratio);
        let ahead = b1 - behind;
        plain - (before - latest) * (t.alpha * b * behind / ratio) - (original - latest) * (t.alpha * b * ahead)
    }
}

/// The step of DDIM.
fn first_order(latents: &Tensor, original: &Tensor, s: Level, t: Level) -> Tensor {
    latents * (t.sigma / s.sigma) - original * (t.alpha * (s.lambda - t.lambda).exp_m1())
}
