//! From the queue of the store to the workers.
//!
//! One task claims, so that what it claims is accounted for before it claims again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tracing::Instrument as _;

use super::shared::{Shared, Table};
use crate::active::ActivePrediction;
use crate::given_pictures::names;
use crate::lifecycle::{End, Stop};
use crate::store::{Claim, Claimed, Outcome, Record, StoreError};

/// The wait after a claim that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Claims what comes next whenever there may be room for it, as long as there is a service.
pub(super) async fn run(shared: Weak<Shared>) {
    while let Some(service) = shared.upgrade() {
        let wake = Arc::clone(&service.wake);
        let claimed = service.claim_next().await;
        drop(service);
        match claimed {
            Ok(()) => wake.notified().await,
            Err(error) => {
                tracing::error!(%error, "nothing can be claimed; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl Shared {
    /// Claims as much as the workers have room for.
    async fn claim_next(self: &Arc<Self>) -> Result<(), StoreError> {
        if let Some(end) = self.abandoned() {
            self.end_queue(&end).await;
            return Ok(());
        }
        loop {
            let wants = self.table().wants(self.options.own_model);
            let Some(wants) = wants else { return Ok(()) };
            let claimed = self.store.claim(wants).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            for claimed in claimed {
                self.assign(claimed);
            }
        }
    }

    /// Gives a claimed prediction to a worker, or back if no worker has room for it any more.
    fn assign(self: &Arc<Self>, claimed: Claimed) {
        let Claimed { claim, record, attempts, started_at, .. } = claimed;
        let mut table = self.table();
        table.claims += 1;
        let active = self.claimed_one(&mut table, &record);
        if !active.claim(claim, attempts) {
            drop(table);
            // It was taken from this node, whose worker has not let go of it yet.
            self.give_back_later(active, claim, record);
            return;
        }
        let suspect = attempts > 1;
        let Some(worker) = table.workers.choose(suspect).filter(|_| !table.closing) else {
            drop(table);
            // The worker that it was claimed for was lost in this moment.
            self.let_go(active, None);
            return;
        };
        let job = table.workers.next_job();
        let Some(queue_time) = active.begin(worker, job.clone(), started_at, table.model.as_ref()) else {
            drop(table);
            self.finish(&active, End::Canceled, Vec::new());
            return;
        };
        table.workers.run(worker, job.clone(), Arc::clone(&active), suspect);
        drop(table);
        if names(active.input()).next().is_some() {
            self.send_with_pictures(worker, job, Arc::clone(&active));
        }
        active.span.in_scope(|| tracing::info!(worker, attempts, "prediction started"));
        metrics::histogram!("syncdiffusion_queue_wait_seconds").record(queue_time);
        self.limit(&active, claim);
    }

    /// The active prediction of a record that was claimed.
    fn claimed_one(&self, table: &mut Table, record: &Arc<Record>) -> Arc<ActivePrediction> {
        let known = table.active.get(&record.prediction.id);
        if let Some(known) = known {
            if known.is_of(record) {
                return Arc::clone(known);
            }
            // Its id is another prediction's by now, so that it has ended elsewhere.
            known.leave();
        }
        // Another node accepted it.
        let active = self.resumed(Record::clone(record), false);
        table.active.insert(active.id().to_owned(), Arc::clone(&active));
        active
    }

    /// Gives a claim back as soon as the prediction is not held under an earlier one any more.
    fn give_back_later(self: &Arc<Self>, active: Arc<ActivePrediction>, claim: Claim, record: Arc<Record>) {
        active.span.in_scope(|| tracing::warn!("a prediction was claimed again before its worker let go of it"));
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            active.until(|phase| phase.is_left() || phase.is_over()).await;
            match shared.store.give_back(&claim, false, record.prediction.logs.clone()).await {
                Ok(Outcome::Ended(record)) if !active.phase().is_over() => {
                    shared.conclude(&active, record.prediction);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a prediction could not be given back to the store"),
            }
            shared.wake();
        });
    }

    /// Ends a claim: what was asked to stop ends as canceled, and all else goes back to the queue. `why` says what
    /// interrupted it, which counts as an attempt.
    pub(super) fn let_go(self: &Arc<Self>, active: Arc<ActivePrediction>, why: Option<&str>) {
        match active.release(why) {
            Some(claim) => self.give_back(active, claim, why.is_some()),
            None => self.finish(&active, End::Canceled, Vec::new()),
        }
    }

    /// Gives a released prediction back to the queue of the store. `counted` says that the attempt counts.
    fn give_back(self: &Arc<Self>, active: Arc<ActivePrediction>, claim: Claim, counted: bool) {
        let shared = Arc::clone(self);
        let span = active.span.clone();
        let returning = async move {
            match shared.store.give_back(&claim, counted, active.logs()).await {
                Ok(Outcome::Waits) => {}
                Ok(Outcome::Ended(record)) => shared.conclude(&active, record.prediction),
                Ok(Outcome::Fenced) => shared.abandon(&active),
                Err(error) => tracing::error!(%error, "a prediction could not be given back to the store"),
            }
            if shared.table().closing {
                active.leave();
            }
            shared.wake();
        };
        self.tasks.spawn(returning.instrument(span));
    }

    /// Stops a prediction that runs for longer than any may.
    fn limit(self: &Arc<Self>, active: &Arc<ActivePrediction>, claim: Claim) {
        let Some(most) = self.options.max_predict else { return };
        // A timer keeps neither the service nor a prediction that has ended.
        let (shared, active) = (Arc::downgrade(self), Arc::downgrade(active));
        tokio::spawn(async move {
            tokio::time::sleep(most).await;
            let (Some(shared), Some(active)) = (shared.upgrade(), active.upgrade()) else { return };
            if active.phase().claim() == Some(claim) {
                shared.interrupt(&active, Stop::TooLong(most.as_secs_f64()), false);
            }
        });
    }
}
