//! What a job costs: how many tasks of each kind it has, at the prices of those kinds.
//!
//! The service estimates by it how long a prediction takes, the worker how far one is and whose windows go next.

/// The numbers of tasks of a job, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// Windows that are denoised, counted in every step.
    pub denoise: u64,
    /// Anchors whose picture the others are compared with.
    pub target: u64,
    /// Windows that are moved towards their anchor.
    pub synchronise: u64,
    /// Whole pictures that are decoded.
    pub decode: u64,
}

/// What a task of each kind costs, in a unit that all four share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// The guided output of the UNet for a window.
    pub denoise: u64,
    /// The perceptual features of the picture that a window is heading for.
    pub target: u64,
    /// The gradient of a window's perceptual distance to the target.
    pub synchronise: u64,
    /// The picture of the whole panorama.
    pub decode: u64,
}

/// Whether step `step`, from 0, is one that synchronises.
pub fn is_synchronised(step: u64, sync_freq: u64, sync_threshold: u32) -> bool {
    (step + 1).is_multiple_of(sync_freq.max(1)) && step < u64::from(sync_threshold)
}

/// How many of `steps` steps synchronise.
pub fn synchronised_steps(steps: u32, sync_freq: u64, sync_threshold: u32) -> u64 {
    u64::from(steps.min(sync_threshold)) / sync_freq.max(1)
}

impl Tasks {
    /// The tasks of `windows` windows in `steps` steps, of which `synchronised` synchronise.
    pub fn new(windows: u64, steps: u64, synchronised: u64) -> Self {
        Self {
            denoise: windows * steps,
            target: synchronised,
            synchronise: synchronised * windows.saturating_sub(1),
            decode: 1,
        }
    }

    /// The same, synchronised on the canvas by `parts` gradients in all. The anchor moves, so it is denoised before
    /// and after.
    pub fn on_canvas(windows: u64, steps: u64, synchronised: u64, parts: u64) -> Self {
        Self { denoise: windows * steps + synchronised, target: synchronised, synchronise: parts, decode: 1 }
    }

    /// The same, synchronised with a picture that was given: nothing is computed to find what to compare with, and no
    /// window is left out. `gradients` are those of all steps.
    pub fn towards_picture(windows: u64, steps: u64, gradients: u64) -> Self {
        Self { denoise: windows * steps, target: 0, synchronise: gradients, decode: 1 }
    }
}

/// The latent values of a window of Stable Diffusion 2: in units of a billion multiply-accumulates over this number,
/// decoding a picture of any size costs an integer.
const WINDOW_LATENTS: u64 = 4 * 64 * 64;

/// Forward and backward of each network on a window of Stable Diffusion 2, in billions of multiply-accumulates.
const UNET: (u64, u64) = (402, 495);
const DECODER: (u64, u64) = (1257, 1283);
const PERCEPTUAL: (u64, u64) = (80, 80);

impl Prices {
    /// In UNet forwards of one window, rounded, with two guidance branches: enough to estimate how long a job takes
    /// from jobs before it.
    pub const ESTIMATE: Self = Self { denoise: 2, target: 10, synchronise: 10, decode: 0 };

    /// By multiply-accumulates, with `branches` guidance branches and a panorama of `latents` latent values. For other
    /// models than Stable Diffusion 2 the proportions are close enough to show progress by and to share a device by.
    pub fn computed(branches: u64, latents: u64) -> Self {
        let denoise = branches * UNET.0;
        let target = DECODER.0 + PERCEPTUAL.0;
        let synchronise = denoise + branches * UNET.1 + target + DECODER.1 + PERCEPTUAL.1;
        Self {
            denoise: denoise * WINDOW_LATENTS,
            target: target * WINDOW_LATENTS,
            synchronise: synchronise * WINDOW_LATENTS,
            decode: DECODER.0 * latents,
        }
    }

    /// What tasks cost together.
    pub fn total(self, tasks: Tasks) -> u64 {
        tasks.denoise * self.denoise
            + tasks.target * self.target
            + tasks.synchronise * self.synchronise
            + tasks.decode * self.decode
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_job_of_two_windows() {
        let tasks = Tasks::new(2, 3, 1);
        assert_eq!(tasks, Tasks { denoise: 6, target: 1, synchronise: 1, decode: 1 });
        let prices = Prices::computed(2, 4 * 64 * 80);
        let gmacs = |price: u64| price as f64 / WINDOW_LATENTS as f64;
        assert_eq!(gmacs(prices.denoise), 804.0);
        assert_eq!(gmacs(prices.target), 1337.0);
        assert_eq!(gmacs(prices.synchronise), 4494.0);
        assert_eq!(gmacs(prices.decode), 1571.25);
        assert_eq!(gmacs(prices.total(tasks)), 6.0 * 804.0 + 1337.0 + 4494.0 + 1571.25);
        assert_eq!(Prices::ESTIMATE.total(tasks), 2 * (3 * 2 + 10));
    }

    proptest! {
        #[test]
        fn synchronised_steps_are_counted(steps in 0_u32..200, freq in 0_u64..20, threshold in 0_u32..220) {
            let count = (0..u64::from(steps)).filter(|&step| is_synchronised(step, freq, threshold)).count();
            prop_assert_eq!(count as u64, synchronised_steps(steps, freq, threshold));
        }

        /// The two price lists do not drift apart: an estimate is off by the rounding of its prices only.
        #[test]
        fn estimates_are_in_proportion(windows in 2_u64..400, steps in 10_u64..200, synced in 0_u64..200) {
            let tasks = Tasks::new(windows, steps, synced.min(steps));
            // Windows a quarter apart: four to a window's worth of latents.
            let prices = Prices::computed(2, WINDOW_LATENTS * (windows + 3) / 4);
            let computed = prices.total(tasks) as f64 / (UNET.0 * WINDOW_LATENTS) as f64;
            let ratio = Prices::ESTIMATE.total(tasks) as f64 / computed;
            prop_assert!((0.85..1.35).contains(&ratio), "{ratio}");
        }
    }
}
