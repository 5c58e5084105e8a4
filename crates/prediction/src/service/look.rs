//! The look at what other nodes do: the progress and the ends of what was accepted or is followed here and runs there,
//! and wishes to stop what runs here.
//!
//! What always holds: what is left to the store is looked at as long as it is in the table; and what is there only to
//! be shown leaves it when nobody looks any more.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::timeout;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::lifecycle::Stop;
use crate::store::{Awaited, Claim, News, Query, Record, StoreError, Stored};
use crate::wire::{Prediction, Status};

/// How often it is taken where there are other nodes.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often it is taken where there are none, once an answer of the store was lost.
const ALONE: Duration = Duration::from_secs(1);
/// The wait after pictures could not be read.
const UNREAD: Duration = Duration::from_secs(1);
/// For how long an answer waits for the pictures of an end.
const MAX_LEARNING: Duration = Duration::from_secs(2);
/// How many predictions are asked for at once; of more each gets its turn.
const MAX_ASKED: usize = 1000;
/// How many of the newest predictions are searched for those of an asker.
const MAX_SEARCHED: usize = 100;

/// Looks as long as there is a service.
pub(super) async fn run(shared: Weak<Shared>) {
    let (mut failed, mut last) = (false, 0);
    while let Some(service) = shared.upgrade() {
        let (fleet, doubtful) = {
            let table = service.table();
            (table.fleet, table.doubtful)
        };
        if fleet || doubtful {
            let looked = service.look_around(&mut last).await;
            if let Err(error) = &looked
                && !failed
            {
                tracing::error!(%error, "the store does not say what other nodes do; trying again");
            }
            failed = looked.is_err();
        }
        drop(service);
        tokio::time::sleep(if fleet { INTERVAL } else { ALONE }).await;
    }
}

impl Shared {
    /// Takes a look; `last` is the number of the prediction that was asked for last.
    async fn look_around(self: &Arc<Self>, last: &mut u64) -> Result<(), StoreError> {
        let (awaited, wants, runs) = {
            let mut table = self.table();
            // Only the table still knows them.
            table
                .active
                .retain(|_, active| active.is_kept() || !active.phase().is_left() || Arc::strong_count(active) > 1);
            let left = table.active.values().filter(|active| active.phase().is_left() && active.seq() > 0);
            let mut awaited: Vec<_> = left.cloned().collect();
            if awaited.len() > MAX_ASKED {
                awaited.sort_unstable_by_key(|active| active.seq().wrapping_sub(*last + 1));
                awaited.truncate(MAX_ASKED);
                *last = awaited.last().map_or(0, |active| active.seq());
            }
            (awaited, table.wants(false).is_some(), table.workers.running().next().is_some())
        };
        if wants {
            // What others accepted wakes nobody here.
            self.wake();
        }
        if awaited.is_empty() && !runs {
            return Ok(());
        }
        let of: Vec<Awaited> = awaited
            .iter()
            .map(|active| Awaited { id: active.id().to_owned(), seq: active.seq(), read: active.read() })
            .collect();
        let by_seq: HashMap<u64, &Arc<ActivePrediction>> =
            awaited.iter().map(|active| (active.seq(), active)).collect();
        for news in self.store.news(&of).await? {
            let of = |seq: u64| by_seq.get(&seq).copied();
            match news {
                News::Stop(claim) => self.stop_held(claim),
                News::Waits { seq, .. } => {
                    if let Some(active) = of(seq) {
                        active.wait_again();
                    }
                }
                News::Runs { seq, attempts, started_at, logs, metrics } => {
                    if let Some(active) = of(seq) {
                        active.watch(attempts, started_at, &logs, &metrics);
                    }
                }
                News::Ended(record) => {
                    if let Some(active) = of(record.seq) {
                        self.learn(active, *record);
                    }
                }
                News::Gone { seq } => {
                    if let Some(active) = of(seq) {
                        self.lose(active);
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks what has become of a prediction that is left to other nodes, so that what is answered is of now and not of
    /// the last look. If the store does not answer, it stays as it was.
    pub(super) async fn catch_up(self: &Arc<Self>, id: &str) {
        let left = self.active(id).filter(|active| active.phase().is_left() && active.seq() > 0);
        let Some(active) = left.filter(|_| self.table().fleet) else { return };
        let awaited = Awaited { id: id.to_owned(), seq: active.seq(), read: active.read() };
        let Ok(news) = self.store.news(&[awaited]).await else { return };
        for news in news {
            match news {
                News::Ended(record) if record.seq == active.seq() => self.learn(&active, *record),
                News::Gone { seq } if seq == active.seq() => self.lose(&active),
                // Progress is for the look, which reads on where it was.
                _ => {}
            }
        }
        let is_learned = || !self.table().learning.contains(&active.seq());
        if !is_learned() {
            _ = timeout(MAX_LEARNING, active.until(|phase| !phase.is_left())).await;
        }
    }

    /// A prediction that is left to other nodes is gone.
    fn lose(&self, active: &Arc<ActivePrediction>) {
        if active.phase().is_left() {
            self.forget(active);
            active.leave();
        }
    }

    /// Another node was asked to stop what runs here.
    fn stop_held(&self, claim: Claim) {
        let held = {
            let table = self.table();
            table.active.values().find(|active| active.phase().claim() == Some(claim)).cloned()
        };
        if let Some(active) = held.filter(|active| !active.stopping.is_cancelled()) {
            self.interrupt(&active, Stop::Canceled, true);
        }
    }

    /// Publishes an end that another node stored. Pictures that are stored beside it are read first, and nothing else
    /// waits for them: where they cannot be read now, a later look brings the end again.
    fn learn(self: &Arc<Self>, active: &Arc<ActivePrediction>, record: Record) {
        if !record.is_bare() {
            return self.publish(active, record.prediction);
        }
        let seq = record.seq;
        if !self.table().learning.insert(seq) {
            return;
        }
        let (shared, active) = (Arc::clone(self), Arc::clone(active));
        tokio::spawn(async move {
            match shared.store.get(active.id()).await {
                Ok(stored) => {
                    let whole = stored.filter(|stored| stored.record.seq == seq);
                    shared.publish(&active, whole.map_or(record.prediction, Stored::into_prediction));
                }
                // They are lost: what is known of it is told.
                Err(error @ StoreError::Corrupt(_)) => {
                    active.span.in_scope(|| tracing::error!(%error, "the pictures of a prediction are lost"));
                    shared.publish(&active, record.prediction);
                }
                Err(error) => {
                    active.span.in_scope(|| tracing::warn!(%error, "the pictures of a prediction cannot be read yet"));
                    tokio::time::sleep(UNREAD).await;
                }
            }
            shared.table().learning.remove(&seq);
        });
    }

    /// Publishes the end of a prediction that is left to other nodes.
    fn publish(self: &Arc<Self>, active: &Arc<ActivePrediction>, prediction: Prediction) {
        if !active.phase().is_left() {
            return;
        }
        // The node that stored it has counted it.
        self.forget(active);
        active.span.in_scope(|| tracing::info!(status = prediction.status.name(), "prediction ended on another node"));
        active.publish_end(prediction);
    }

    /// A prediction that is not active here, as the store and the node that runs it say.
    pub(super) async fn ask_store(&self, id: &str) -> Result<Option<Prediction>, StoreError> {
        let Some(stored) = self.store.get(id).await? else { return Ok(None) };
        let seq = stored.record.seq;
        let mut prediction = stored.into_prediction();
        match prediction.status {
            Status::Starting => {
                if let Some(place) = self.store.place(seq).await? {
                    prediction.metrics.queue_position = Some(place.before);
                    let table = self.table();
                    let units = table.units_elsewhere(&prediction.input);
                    let seconds = table.seconds_until_end(units, place);
                    prediction.metrics.seconds_left = seconds.filter(|_| self.is_served(&table, &prediction));
                }
            }
            Status::Processing => {
                let awaited = Awaited { id: id.to_owned(), seq, read: 0 };
                for news in self.store.news(&[awaited]).await? {
                    if let News::Runs { seq: of, logs, metrics, .. } = news
                        && of == seq
                    {
                        prediction.logs.push_str(&logs);
                        prediction.metrics = *metrics;
                    }
                }
            }
            _ => {}
        }
        Ok(Some(prediction))
    }

    /// The newest prediction of a fleet that has not ended and that one of these asked for, and who did.
    pub(super) async fn newest_of(&self, askers: &[String]) -> Result<Option<(String, Prediction)>, StoreError> {
        if !self.table().fleet {
            return Ok(None);
        }
        let listed = self.store.list(Query { limit: MAX_SEARCHED, ..Query::default() }).await?;
        let active = listed.into_iter().filter(|record| !record.prediction.status.is_terminal());
        let mut theirs = active.filter_map(|Record { asker, prediction, .. }| {
            asker.filter(|asker| askers.contains(asker)).map(|asker| (asker, prediction))
        });
        Ok(theirs.next())
    }

    /// A prediction that has not ended: one that is active here, or one that another node looks after, which is shown
    /// here as long as somebody holds it.
    pub(super) async fn find(self: &Arc<Self>, id: &str) -> Result<Option<Arc<ActivePrediction>>, StoreError> {
        self.catch_up(id).await;
        if let Some(active) = self.stored(id).await {
            return Ok(Some(active));
        }
        if !self.table().fleet {
            return Ok(None);
        }
        let Some(stored) = self.store.get(id).await? else { return Ok(None) };
        if stored.record.prediction.status.is_terminal() {
            return Ok(None);
        }
        let mut table = self.table();
        let shown = self.resumed(stored.record, false);
        Ok(Some(Arc::clone(table.active.entry(id.to_owned()).or_insert(shown))))
    }
}
