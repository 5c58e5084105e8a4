//! What a prediction costs and how long that takes here.
//!
//! Cost is counted in forwards of the UNet on one window, which dominate. The rate of this machine is learned from what
//! it has finished; until then there is no estimate rather than a guess.

use geometry::{Ends, Geometry, Prices, Tasks, kept_steps, synchronised_steps};
use protocol::{Input, SyncMode};

use crate::given_pictures::names;

/// Weight of the newest measurement in the moving average.
const NEW: f64 = 0.3;

/// The cost of an input, in UNet forwards of one window. `image` is the size of its `image`, if that is known.
pub(crate) fn units(input: &Input, geometry: Geometry, image: Option<(u32, u32)>) -> f64 {
    Prices::ESTIMATE.total(tasks(input, geometry, image)) as f64 * f64::from(input.num_outputs)
}

/// The tasks of one of its pictures.
fn tasks(input: &Input, geometry: Geometry, image: Option<(u32, u32)>) -> Tasks {
    let ends = Ends::of(input.loop_closure, input.seamless);
    let layout = geometry.layout((input.width, input.height), input.stride, ends);
    let windows = layout.count();
    let left_out = image.map_or(0, |size| left_out(input, geometry, size));
    let synchronised = |steps| synchronised_steps(steps, input.sync_freq, input.sync_threshold);
    let synchronised = synchronised(input.num_inference_steps) - synchronised(left_out);
    let steps = input.num_inference_steps - left_out;
    if names(input).next().is_some() {
        // Synchronised with a picture: no window is left out.
        let gradients = match input.sync_mode {
            SyncMode::Windows => synchronised * windows,
            SyncMode::Canvas => synchronised * layout.parts(),
        };
        return Tasks::towards_picture(windows, steps.into(), gradients);
    }
    match input.sync_mode {
        SyncMode::Windows => Tasks::new(windows, steps.into(), synchronised),
        SyncMode::Canvas => Tasks::on_canvas(windows, steps.into(), synchronised, synchronised * layout.parts()),
    }
}

/// How many steps, from the first, are left out: those in which an `image` that fills the panorama is kept.
fn left_out(input: &Input, geometry: Geometry, image: (u32, u32)) -> u32 {
    match geometry.place(image, (input.width, input.height), input.image_left) {
        Ok(placed) if placed.width == input.width => {
            kept_steps(input.num_inference_steps, input.strength.unwrap_or(0.0))
        }
        _ => 0,
    }
}

/// Seconds a unit takes on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate(Option<f64>);

impl Rate {
    /// Learns from a finished prediction that shared its worker with `beside` others.
    pub(crate) fn learn(&mut self, units: f64, seconds: f64, beside: usize) {
        if units <= 0.0 || seconds <= 0.0 {
            return;
        }
        let measured = seconds / units / (beside + 1) as f64;
        self.0 = Some(self.0.map_or(measured, |known| known + NEW * (measured - known)));
    }

    /// The seconds that this number of units takes; `None` until something was measured.
    pub(crate) fn seconds(self, units: f64) -> Option<f64> {
        self.0.map(|rate| rate * units)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn cost_counts_windows_and_steps() {
        let units = |value| units(&crate::input::parse(&value, None).unwrap().input, Geometry::default(), None);
        let plain = json!({"prompt": "a", "sync_threshold": 0, "width": 512});
        assert!((units(plain) - 100.0).abs() < 1e-9);
        assert!((units(json!({"prompt": "a", "sync_threshold": 0})) - 1300.0).abs() < 1e-9);
        assert!((units(json!({"prompt": "a", "sync_threshold": 0, "num_outputs": 3})) - 3900.0).abs() < 1e-9);
        assert!((units(json!({"prompt": "a", "sync_threshold": 0, "seamless": true})) - 1600.0).abs() < 1e-9);
        // Each of 5 steps has 4 gradients for 12, and denoises the anchor once more.
        let saved = units(json!({"prompt": "a"})) - units(json!({"prompt": "a", "sync_mode": "canvas"}));
        assert!((saved - 5.0 * (8.0 * 10.0 - 2.0)).abs() < 1e-9, "{saved}");
        assert!(units(json!({"prompt": "a"})) > units(json!({"prompt": "a", "sync_freq": 3})));
        // A picture is there already, and the window in the middle is synchronised like the others.
        let anchored = |more| {
            let mut input = json!({"prompt": "a", "anchor_image": "https://a/b"});
            input["sync_mode"] = more;
            units(input)
        };
        let unsynchronised = units(json!({"prompt": "a", "sync_threshold": 0}));
        assert!(anchored(json!("windows")) > unsynchronised && anchored(json!("canvas")) > unsynchronised);
        assert!(anchored(json!("canvas")) < anchored(json!("windows")));
    }

    /// As the engine has it: where an `image` fills the panorama, the steps in which it is kept are not computed.
    #[test]
    fn steps_that_are_left_out_cost_nothing() {
        let tasks = |size, strength: f64, more: Value| {
            let mut input = json!({"prompt": "a", "image": "https://a/b", "width": 1024, "strength": strength});
            input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            tasks(&crate::input::parse(&input, None).unwrap().input, Geometry::default(), size)
        };
        let (whole, part) = (Some((2048, 1024)), Some((512, 512)));
        // 5 windows; of 50 steps the first 5 synchronise.
        let all = Tasks::towards_picture(5, 50, 25);
        assert_eq!(tasks(whole, 0.3, json!({})), Tasks::towards_picture(5, 15, 0));
        assert_eq!(tasks(whole, 0.94, json!({})), Tasks::towards_picture(5, 47, 10));
        assert_eq!(tasks(whole, 0.94, json!({"sync_freq": 2})), Tasks::towards_picture(5, 47, 5));
        assert_eq!(tasks(whole, 0.94, json!({"sync_mode": "canvas"})), Tasks::towards_picture(5, 47, 4));
        assert_eq!(tasks(whole, 1.0, json!({})), all);
        assert_eq!(tasks(part, 0.3, json!({})), all);
        assert_eq!(tasks(None, 0.3, json!({})), all);
        let anchored = tasks(whole, 0.3, json!({"sync_threshold": 50}));
        assert_eq!(anchored, Tasks::towards_picture(5, 15, 75));
    }

    /// By the prices of an estimate, and by those of the counters.
    #[test]
    fn the_fast_preset_is_less_than_a_third_of_the_work() {
        let input = |value| crate::input::parse(&value, None).unwrap().input;
        let [fast, usual] = ["fast", "default"].map(|preset| {
            let input = input(json!({"prompt": "a", "preset": preset}));
            let latents = u64::from(input.width / 8 * (input.height / 8) * 4);
            let tasks = tasks(&input, Geometry::default(), None);
            [Prices::ESTIMATE, Prices::computed(2, latents)].map(|prices| prices.total(tasks) as f64)
        });
        for (fast, usual) in std::iter::zip(fast, usual) {
            assert!(fast / usual <= 0.30, "{}", fast / usual);
        }
    }

    #[test]
    fn the_rate_is_learned() {
        let mut rate = Rate::default();
        assert_eq!(rate.seconds(10.0), None);
        rate.learn(10.0, 20.0, 0);
        assert_eq!(rate.seconds(1.0), Some(2.0));
        rate.learn(10.0, 20.0, 1);
        assert!(rate.seconds(1.0).unwrap() < 2.0);
    }
}
