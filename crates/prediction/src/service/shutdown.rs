//! The end of a service: nothing new, a while for what runs, and everything else stays for the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::lifecycle::End;

/// How long pictures and webhooks may take to leave after the grace period.
const LAST_SENDS: Duration = Duration::from_secs(5);
/// How often it is looked whether something still runs.
const CHECK: Duration = Duration::from_millis(10);

impl Shared {
    /// Ends the service: what runs may continue for `grace`; what then has not ended goes back to the store, uncounted,
    /// or fails if the store does not outlive the process.
    pub(super) async fn close(self: &Arc<Self>, grace: Duration) {
        self.table().closing = true;
        let until = Instant::now() + grace;
        while self.table().workers.running().next().is_some() && Instant::now() < until {
            sleep(CHECK).await;
        }
        let rest: Vec<_> = {
            let mut table = self.table();
            let mut held = table.workers.detach_all();
            held.extend(std::mem::take(&mut table.queue).into_values());
            held
        };
        for active in rest {
            if self.store.durable() {
                self.hand_back(&active).await;
            } else {
                self.finish(&active, End::Failed("the server was stopped before it was done".to_owned()), None);
            }
        }
        self.tasks.close();
        // What has left its worker may still be on its way to a receiver.
        let _ = timeout(until.saturating_duration_since(Instant::now()).max(LAST_SENDS), self.tasks.wait()).await;
        self.webhooks.flush(LAST_SENDS).await;
    }

    /// Leaves a prediction to the next process.
    async fn hand_back(&self, active: &ActivePrediction) {
        if !active.hand_back() {
            return;
        }
        if let Err(error) = self.store.note(active.id(), active.seq(), None, active.attempts()).await {
            active.span.in_scope(|| tracing::error!(%error, "a prediction could not be given back to the store"));
        }
    }
}
