//! A prediction of which another node has a part: one that runs there is shown here, and what runs here is told there.

use super::{ActivePrediction, State};
use crate::feed::Event;
use crate::time::Time;
use crate::wire::Metrics;

impl ActivePrediction {
    /// Another node runs it, and has said this since `read` bytes of its logs.
    pub(crate) fn watch(&self, attempts: u32, at: Time, logs: &str, metrics: &Metrics) {
        let changed = self.change(|State { life, shown, read, .. }| {
            let is_new = life.watch(attempts)?;
            let moved = shown.metrics.progress != metrics.progress;
            shown.started_at = Some(at);
            shown.metrics = metrics.clone();
            // The logs of a new attempt are told from their beginning; what was read now may be of an earlier one.
            *read = if is_new { 0 } else { *read + logs.len() };
            Some((is_new, moved))
        });
        let Some((is_new, moved)) = changed else { return };
        if is_new {
            if self.feed.is_empty() {
                self.feed.push(Event::Start);
            }
        } else {
            logs.lines().for_each(|line| self.log(line));
        }
        if moved && let (Some(progress), Some(step), Some(steps)) = (metrics.progress, metrics.step, metrics.steps) {
            self.feed.push(Event::Progress { progress, step, steps, seconds_left: metrics.seconds_left });
        }
    }

    /// How many bytes of the logs of this attempt were read from another node.
    pub(crate) fn read(&self) -> usize {
        self.state.borrow().read
    }

    /// The node that ran it does not any more.
    pub(crate) fn wait_again(&self) {
        self.change(|State { life, shown, read, .. }| {
            life.wait_again().then(|| {
                *read = 0;
                shown.started_at = None;
                shown.metrics = Metrics::default();
            })
        });
    }

    /// Its claim does not hold any more: it is the store's again. Whether it was canceled, which the store may not
    /// know.
    pub(crate) fn lose(&self) -> bool {
        let lost = self.change(|State { life, shown, read, .. }| {
            let stops = life.lose()?;
            *read = 0;
            shown.started_at = None;
            shown.metrics = Metrics::default();
            Some(stops)
        });
        self.drawn().clear();
        lost.unwrap_or_default()
    }

    /// What is to be said of it to other nodes: its logs of this attempt after `said` bytes, and its metrics.
    pub(crate) fn said(&self, said: usize) -> (String, Metrics) {
        let state = self.state.borrow();
        let logs = state.shown.logs.get(state.logs_before + said..).unwrap_or_default();
        (logs.to_owned(), state.shown.metrics.clone())
    }
}
