//! What all parts of a service share: how it behaves, the store, and the table of everything that has not ended.
//!
//! The other files of this folder add to [`Shared`] what happens at one point of a prediction's way. What always holds:
//! locks are taken in the order table, prediction, feed, and never across an await.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::Model;
use tokio_util::task::TaskTracker;

use super::setup::Setup;
use super::workers::Workers;
use crate::active::ActivePrediction;
use crate::cost::{self, Rate};
use crate::input::{Geometry, geometry_of};
use crate::outgoing::Gate;
use crate::store::{Retention, Store};
use crate::upload::{self, Uploader};
use crate::webhook::{self, WebhookSender};
use crate::wire::Prediction;

/// How a service behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many predictions may wait when all workers are busy.
    pub queue_size: usize,
    /// How many predicted seconds of work may wait; no limit if absent.
    pub queue_seconds: Option<f64>,
    /// How long a prediction may run; no limit if absent.
    pub max_predict: Option<Duration>,
    /// How long a worker with a job may be silent before it counts as hung.
    pub hang: Duration,
    /// How long a worker may take to load.
    pub load: Duration,
    /// What the store keeps of what has ended.
    pub retention: Retention,
    /// How webhooks are sent.
    pub webhooks: webhook::Options,
    /// Where pictures go.
    pub place: upload::Place,
    /// Whether pictures contain how they were made.
    pub metadata: bool,
    /// Which URLs of clients may be called.
    pub gate: Gate,
    /// How many events of a prediction are shown to those who begin to follow it later.
    pub stream_history: usize,
}

/// What the handles of a service, its requests, its supervisors and its timers share.
pub(super) struct Shared {
    /// Read everywhere, changed nowhere.
    pub(super) options: Options,
    /// Holds every prediction that was accepted; the table is the part of it that has not ended.
    pub(super) store: Arc<dyn Store>,
    /// Follows every prediction that has a webhook.
    pub(super) webhooks: WebhookSender,
    /// Sends pictures where they are to go, by its HTTP clients.
    pub(super) uploader: Uploader,
    /// One lock for what changes together: an id, its place in the queue, and the worker that gets it.
    table: Mutex<Table>,
    /// Work that is to be done before the process ends: encoding and sending pictures, storing ends.
    pub(super) tasks: TaskTracker,
}

/// Everything that has not ended, and who works on it.
pub(super) struct Table {
    /// By id, so that requests find it. An id is here from before it is stored until its end is.
    pub(super) active: HashMap<String, Arc<ActivePrediction>>,
    /// What waits, in the order of acceptance. What comes back from a lost worker is first again by its number.
    pub(super) queue: BTreeMap<u64, Arc<ActivePrediction>>,
    /// How many of `active` have a place in the queue and are still being stored, so that no more are accepted than
    /// there is room for.
    pub(super) storing: usize,
    /// The newest number in the order of acceptance.
    pub(super) last_seq: u64,
    pub(super) workers: Workers,
    /// The model that the workers have loaded, once the first has said which: new predictions show it.
    pub(super) model: Option<Model>,
    /// How fast this machine is, for estimates.
    pub(super) rate: Rate,
    /// For the health check.
    pub(super) setup: Setup,
    /// The server stops: nothing is accepted, and nothing is given to workers.
    pub(super) closing: bool,
}

impl Shared {
    pub(super) fn new(
        options: Options,
        store: Arc<dyn Store>,
        webhooks: WebhookSender,
        uploader: Uploader,
        table: Table,
    ) -> Self {
        Self { options, store, webhooks, uploader, table: Mutex::new(table), tasks: TaskTracker::new() }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn active(&self, id: &str) -> Option<Arc<ActivePrediction>> {
        self.table().active.get(id).cloned()
    }

    /// A prediction that has not ended as it is now, its place in the queue included.
    pub(super) fn look(&self, id: &str) -> Option<Prediction> {
        let table = self.table();
        let active = table.active.get(id)?;
        let mut prediction = active.snapshot();
        if table.queue.contains_key(&active.seq()) {
            let metrics = &mut prediction.metrics;
            metrics.queue_position = Some(table.queue.range(..active.seq()).count() as u64);
            metrics.seconds_left = table.seconds_until_end(active);
        }
        Some(prediction)
    }
}

impl Table {
    pub(super) fn new(workers: usize, last_seq: u64) -> Self {
        Self {
            active: HashMap::new(),
            queue: BTreeMap::new(),
            storing: 0,
            last_seq,
            workers: Workers::new(workers),
            model: None,
            rate: Rate::default(),
            setup: Setup::default(),
            closing: false,
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.model.as_ref().map(geometry_of).unwrap_or_default()
    }

    /// What a prediction costs, in the units of [`cost`].
    pub(super) fn units(&self, active: &ActivePrediction) -> f64 {
        cost::units(active.input(), self.geometry())
    }

    /// Estimated seconds until a prediction in the queue has ended.
    pub(super) fn seconds_until_end(&self, active: &ActivePrediction) -> Option<f64> {
        let own = self.rate.seconds(self.units(active));
        self.seconds_before(active.seq()).zip(own).map(|(before, own)| before + own)
    }

    /// Estimated seconds until a place in the queue comes up.
    pub(super) fn seconds_before(&self, seq: u64) -> Option<f64> {
        let waiting = self.queue.range(..seq).map(|(_, active)| self.units(active));
        let running = self.workers.running().map(|active| (1.0 - active.progress_share()) * self.units(active));
        self.rate.seconds(waiting.chain(running).sum::<f64>() / self.workers.share() as f64)
    }

    /// When there will be room again, as far as that can be estimated.
    pub(super) fn retry_after(&self) -> Duration {
        let first = self.workers.running().filter_map(|active| active.seconds_left()).reduce(f64::min);
        let average = self.seconds_before(u64::MAX).map(|all| all / (self.queue.len() + 1) as f64);
        Duration::from_secs_f64(first.or(average).unwrap_or(5.0).clamp(1.0, 3600.0).ceil())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tracing::Span;

    use super::*;
    use crate::store::Record;
    use crate::wire::tests::accepted;

    /// A prediction of 100 units: one window, 50 guided steps.
    fn active(seq: u64) -> Arc<ActivePrediction> {
        let input = json!({"prompt": "a", "width": 512, "num_inference_steps": 50, "sync_threshold": 0});
        let (prediction, webhook) = (accepted(&seq.to_string(), &input), None);
        let record =
            Record { prediction, seq, attempts: 0, webhook, output_file_prefix: None, file: None, deadline: None };
        Arc::new(ActivePrediction::resume(record, 0, Span::none()))
    }

    #[test]
    fn estimates_add_up_what_is_before_and_share_it_among_the_workers() {
        let mut table = Table::new(2, 0);
        for seq in 1..=3 {
            table.queue.insert(seq, active(seq));
        }
        let last = active(3);
        assert_eq!((table.seconds_until_end(&last), table.retry_after()), (None, Duration::from_secs(5)));
        // 100 units take 20 seconds.
        table.rate.learn(100.0, 20.0, 0);
        table.workers.slot(0).ready(1);
        assert_eq!(table.seconds_before(1), Some(0.0));
        assert_eq!(table.seconds_before(3), Some(40.0));
        assert_eq!(table.seconds_until_end(&last), Some(60.0));
        assert_eq!(table.retry_after(), Duration::from_secs(15), "60 seconds by 3 and the new one");

        let running = active(0);
        running.begin(0, "1".to_owned(), None).unwrap();
        table.workers.run(0, "1".to_owned(), Arc::clone(&running), false);
        assert_eq!(table.seconds_before(3), Some(60.0));
        running.progress(1, 4, 3.0, 0.25);
        assert_eq!(table.seconds_before(3), Some(55.0), "a quarter is done");
        assert_eq!(table.retry_after(), Duration::from_secs(9), "what runs has 9 seconds left");
        table.workers.slot(1).ready(1);
        assert_eq!(table.seconds_before(3), Some(27.5), "two workers");
        assert_eq!(table.seconds_until_end(&last), Some(47.5));
        running.progress(1, 4, 8000.0, 0.5);
        assert_eq!(table.retry_after(), Duration::from_hours(1), "at most");
    }
}
