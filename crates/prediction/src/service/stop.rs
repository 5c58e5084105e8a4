//! The ways to stop a prediction: by a request, by its client that leaves, by its deadline.
//!
//! What waits is ended by the store. What was claimed here is interrupted here; if a request asked for it, the wish is
//! stored first, so that a crash does not forget what was answered.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::lifecycle::{Phase, Stop};
use crate::store::{Stopped, StoreError, announce};

/// The wait after a stop that could not be stored; doubles up to `MAX_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(5);

impl Shared {
    /// Stops the prediction of an id; false if it does not exist or has ended. When this returns, the wish is stored.
    pub(super) async fn cancel(self: &Arc<Self>, id: &str) -> Result<bool, StoreError> {
        if let Some(active) = self.stored(id).await
            && self.stop(&active).await?
        {
            return Ok(true);
        }
        // Another node may be at it, or at one that has the id since.
        Ok(match self.store.stop(id).await? {
            Stopped::Ended(record) => {
                // It waited, so nobody else reports its end.
                announce(&record);
                true
            }
            Stopped::Asked => true,
            Stopped::TooLate | Stopped::Unknown => false,
        })
    }

    /// Stops a prediction by the store, and no other that has its id by now; false if its end is stored or being
    /// stored.
    async fn stop(self: &Arc<Self>, active: &Arc<ActivePrediction>) -> Result<bool, StoreError> {
        let seq = Some(active.seq()).filter(|seq| *seq > 0);
        // The wish may be stored although its answer was lost.
        let stopped = self.store.stop_one(active.id(), seq).await.inspect_err(|_| self.table().doubtful = true)?;
        match stopped {
            Stopped::Ended(record) => self.conclude(active, record.prediction),
            Stopped::Asked => _ = self.interrupt(active, Stop::Canceled, true),
            Stopped::TooLate | Stopped::Unknown => return Ok(false),
        }
        Ok(true)
    }

    /// Has a claimed prediction stop, wherever it is; false if it is not claimed. `stored` says that the store has the
    /// wish.
    pub(super) fn interrupt(&self, active: &ActivePrediction, stop: Stop, stored: bool) -> bool {
        if !active.request_stop(stop, stored) {
            return false;
        }
        let table = self.table();
        // What is on its way to a worker does not begin, and what is being sent listens to its token.
        if let Phase::Running { worker, job, .. } = active.phase() {
            table.workers.cancel(worker, job);
        }
        true
    }

    /// Stops a prediction without anybody who waits for an answer: its client has left, or its time is over.
    pub(super) fn give_up(self: &Arc<Self>, active: &Arc<ActivePrediction>) {
        if self.interrupt(active, Stop::Canceled, false) {
            return;
        }
        let (shared, active) = (Arc::clone(self), Arc::clone(active));
        let span = active.span.clone();
        let stopping = async move {
            let mut wait = FIRST_WAIT;
            while !active.phase().is_over() {
                match shared.stop(&active).await {
                    Ok(_) | Err(StoreError::Closed) => return,
                    Err(error) => tracing::error!(%error, "a prediction could not be stopped; trying again"),
                }
                tokio::time::sleep(wait).await;
                wait = (2 * wait).min(MAX_WAIT);
            }
        };
        tokio::spawn(stopping.instrument(span));
    }

    /// Stops a prediction when its `Cancel-After` has passed.
    pub(super) fn give_up_at_deadline(self: &Arc<Self>, active: &Arc<ActivePrediction>) {
        let Some(deadline) = active.deadline() else { return };
        // A timer keeps neither the service nor a prediction that has ended.
        let (shared, active) = (Arc::downgrade(self), Arc::downgrade(active));
        tokio::spawn(async move {
            tokio::time::sleep(deadline.remaining()).await;
            if let (Some(shared), Some(active)) = (shared.upgrade(), active.upgrade()) {
                shared.give_up(&active);
            }
        });
    }
}
