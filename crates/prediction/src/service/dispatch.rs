//! From the queue to the workers, and the ways to stop a prediction wherever it is.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::shared::{Shared, Table};
use crate::active::ActivePrediction;
use crate::lifecycle::{End, Phase, Stop};
use crate::time::Time;

impl Shared {
    /// Gives waiting predictions to workers with room, strictly in order.
    pub(super) fn dispatch(self: &Arc<Self>, table: &mut Table) {
        while !table.closing {
            let Some((&seq, next)) = table.queue.first_key_value() else { return };
            let suspect = next.attempts() > 0;
            let Some(worker) = table.workers.choose(suspect) else { return };
            let Some(active) = table.queue.remove(&seq) else { return };
            let job = table.workers.next_job();
            // What was asked to stop in this moment is ended by whoever asked.
            let Some(started) = active.begin(worker, job.clone(), table.model.as_ref()) else { continue };
            table.workers.run(worker, job, Arc::clone(&active), suspect);
            active.span.in_scope(|| tracing::info!(worker, attempts = started.attempts, "prediction started"));
            metrics::histogram!("syncdiffusion_queue_wait_seconds").record(started.queue_time);
            self.note(&active, Some(started.at), started.attempts);
            self.limit(&active, started.attempts);
        }
    }

    /// Notes in the store where a prediction is; a note that is lost costs at most an attempt.
    pub(super) fn note(&self, active: &ActivePrediction, started_at: Option<Time>, attempts: u32) {
        let store = Arc::clone(&self.store);
        let (id, seq) = (active.id().to_owned(), active.seq());
        let note = async move {
            if let Err(error) = store.note(&id, seq, started_at, attempts).await {
                tracing::error!(%error, "the start of a prediction could not be stored");
            }
        };
        self.tasks.spawn(note.instrument(active.span.clone()));
    }

    /// Stops a prediction that runs for longer than any may.
    fn limit(self: &Arc<Self>, active: &Arc<ActivePrediction>, attempt: u32) {
        let Some(most) = self.options.max_predict else { return };
        self.stop_after(active, most, Stop::TooLong(most.as_secs_f64()), move |active| active.attempts() == attempt);
    }

    /// Stops a prediction when its `Cancel-After` has passed.
    pub(super) fn stop_at_deadline(self: &Arc<Self>, active: &Arc<ActivePrediction>) {
        if let Some(deadline) = active.deadline() {
            self.stop_after(active, deadline.remaining(), Stop::Canceled, |_| true);
        }
    }

    fn stop_after(
        self: &Arc<Self>,
        active: &Arc<ActivePrediction>,
        wait: Duration,
        stop: Stop,
        still: impl FnOnce(&ActivePrediction) -> bool + Send + 'static,
    ) {
        // A timer keeps neither the service nor a prediction that has ended.
        let (shared, active) = (Arc::downgrade(self), Arc::downgrade(active));
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let (Some(shared), Some(active)) = (shared.upgrade(), active.upgrade()) else { return };
            if still(&active) {
                shared.stop(&active, stop);
            }
        });
    }

    /// Asks a prediction to stop, wherever it is; false if it is ending already.
    pub(super) fn stop(self: &Arc<Self>, active: &Arc<ActivePrediction>, stop: Stop) -> bool {
        if !active.request_stop(stop) {
            return false;
        }
        let mut table = self.table();
        table.queue.remove(&active.seq());
        match active.phase() {
            Phase::Queued => self.finish(active, End::Canceled, None),
            Phase::Running { worker, job } => table.workers.cancel(worker, job),
            // What is being stored is ended when it is; what is being sent listens to its token.
            _ => {}
        }
        true
    }
}
