//! An attempt to draw a prediction in this process: from its claim to what its worker has drawn, or to its return to
//! the queue.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use protocol::{Figures, Model};

use super::{ActivePrediction, Shown, State};
use crate::feed::Event;
use crate::lifecycle::Phase;
use crate::mutex::lock;
use crate::progress;
use crate::store::Claim;
use crate::time::Time;
use crate::wire::Metrics;

/// How long the logs may become by lines of the worker; lines of progress, one a step, come on top.
pub(super) const MAX_LOGS: usize = 1 << 20;

impl ActivePrediction {
    /// This process has claimed it. False if it is not there to be claimed.
    pub(crate) fn claim(&self, claim: Claim, attempts: u32) -> bool {
        self.change(|state| {
            state.seq = claim.seq;
            state.logs_before = state.shown.logs.len();
            state.life.claim(claim, attempts).then_some(())
        })
        .is_some()
    }

    /// A worker begins with it; how long it has waited for that, or `None` if it is to stop.
    pub(crate) fn begin(&self, worker: usize, job: String, at: Time, model: Option<&Model>) -> Option<f64> {
        let queue_time = at.since(self.accepted.prediction.created_at);
        self.change(|State { life, shown, .. }| {
            life.begin(worker, job).then(|| {
                shown.started_at = Some(at);
                shown.metrics = Metrics { queue_time: Some(queue_time), ..Metrics::default() };
                shown.model = model.map(|model| model.name.clone());
                shown.version = model.map(|model| model.version.clone());
            })
        })?;
        self.drawn().clear();
        if self.feed.is_empty() {
            self.feed.push(Event::Start);
        }
        Some(queue_time)
    }

    /// Those of several pictures that this attempt has drawn so far.
    pub(super) fn drawn(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<[u8]>>> {
        lock(&self.drawn)
    }

    /// Keeps one of several pictures until the others are drawn, too, if it is of the present attempt.
    pub(crate) fn keep(&self, job: &str, n: u32, picture: Arc<[u8]>) {
        let mut drawn = self.drawn();
        if matches!(self.phase(), Phase::Running { job: current, .. } if current == job) {
            drawn.insert(n, picture);
        }
    }

    /// What its pictures come to, of a worker that is done with it.
    pub(crate) fn evaluated(&self, figures: Vec<Figures>) {
        self.update(|state| state.shown.metrics.figures = figures);
    }

    /// Takes the pictures that were kept, in order.
    pub(crate) fn take_drawn(&self) -> Vec<Arc<[u8]>> {
        std::mem::take(&mut *self.drawn()).into_values().collect()
    }

    /// It is given back to the queue, because its worker was lost (`why`) or no worker has room: the claim to give
    /// back, or `None` if it is to stop.
    pub(crate) fn release(&self, why: Option<&str>) -> Option<Claim> {
        let claim = self.change(|State { life, shown, .. }| {
            let claim = life.release()?;
            shown.started_at = None;
            shown.metrics = Metrics::default();
            Some(claim)
        })?;
        self.drawn().clear();
        if let Some(why) = why {
            self.log(&format!("the worker was lost ({why}); trying once more"));
        }
        Some(claim)
    }

    /// Its worker is done with it.
    pub(crate) fn computed(&self) -> bool {
        self.change(|state| state.life.computed().then_some(())).is_some()
    }

    /// Adds a line of its worker to the logs, unless they are full.
    pub(crate) fn log_of_worker(&self, line: &str) {
        const LEFT_OUT: &str = "further lines of the worker are left out";
        let (is_full, fits) = {
            let shown = &self.state.borrow().shown;
            (shown.is_full, shown.logs.len() + line.len() < MAX_LOGS)
        };
        if is_full {
            return;
        }
        if !fits {
            self.update(|state| state.shown.is_full = true);
        }
        self.log(if fits { line } else { LEFT_OUT });
    }

    /// Its worker got on: `fraction` of the work is done, and `step` of `of` steps, after `seconds`.
    pub(crate) fn progress(&self, step: u32, of: u32, seconds: f64, fraction: f64) {
        // A worker cannot make more of it than was asked for.
        let of = of.min(self.input().num_inference_steps);
        let step = step.min(of);
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        let seconds_left = (fraction > 0.0).then(|| seconds * (1.0 - fraction) / fraction);
        let before = self.update(|State { shown: Shown { metrics, .. }, .. }| {
            metrics.progress = Some(fraction);
            metrics.steps = Some(of);
            metrics.seconds_left = seconds_left;
            let before = metrics.step.unwrap_or(0);
            metrics.step = Some(step.max(before));
            before
        });
        self.feed.push(Event::Progress { progress: fraction, step, steps: of, seconds_left });
        // Each step has one line, whatever the worker repeats.
        for step in before.unwrap_or(0).saturating_add(1)..=step {
            self.log(&progress::line(step, of, seconds));
        }
    }
}
