//! The end of a service: nothing new, a while for what runs, and everything else stays for the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::shared::Shared;
use crate::lifecycle::End;
use crate::store::{Claimed, Wants};

/// How long pictures and webhooks may take to leave after the grace period.
const LAST_SENDS: Duration = Duration::from_secs(5);
/// How often it is checked whether something still runs.
const CHECK: Duration = Duration::from_millis(10);
/// How much of the queue is claimed at a time, to end it.
const BATCH: usize = 256;

impl Shared {
    /// Ends the service: what runs may continue for `grace`; what then has not ended goes back to the store, uncounted,
    /// or fails if the store does not outlive the process.
    pub(super) async fn close(self: &Arc<Self>, grace: Duration) {
        self.table().closing = true;
        if self.store.durable() {
            // Nothing more begins, so whoever waits for something that has not begun need not wait for the rest.
            self.halted.cancel();
        }
        let until = Instant::now() + grace;
        while self.table().workers.running().next().is_some() && Instant::now() < until {
            sleep(CHECK).await;
        }
        let held = self.table().workers.detach_all();
        if self.store.durable() {
            for active in held {
                self.let_go(active, None);
            }
            self.leave_queue();
        } else {
            for active in &held {
                self.finish(active, stopped(), Vec::new());
            }
            self.end_queue(&stopped()).await;
        }
        self.tasks.close();
        // What has left its worker may still be on its way to a receiver.
        let ended = timeout(until.saturating_duration_since(Instant::now()).max(LAST_SENDS), self.tasks.wait()).await;
        let unstored = self.table().unstored.len();
        if ended.is_err() && unstored > 0 {
            tracing::error!(
                unstored,
                "the ends of predictions could not be stored; these predictions run again after a restart"
            );
        }
        self.webhooks.flush(LAST_SENDS).await;
    }

    /// Leaves what waits to the next process. It is in the store, so nothing needs to be written.
    fn leave_queue(&self) {
        let active: Vec<_> = self.table().active.values().cloned().collect();
        for active in active {
            if active.phase().is_left() {
                active.leave();
            }
        }
    }

    /// Ends what waits in a store that does not outlive the process.
    pub(super) async fn end_queue(self: &Arc<Self>, end: &End) {
        loop {
            let claimed = match self.store.claim(Wants::any(BATCH)).await {
                Ok(claimed) if claimed.is_empty() => return,
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::error!(%error, "what waits could not be ended");
                    return;
                }
            };
            for Claimed { claim, record, attempts, .. } in claimed {
                let active = self.active(&record.prediction.id).filter(|active| active.claim(claim, attempts));
                if let Some(active) = active {
                    self.finish(&active, end.clone(), Vec::new());
                }
            }
        }
    }
}

/// The end of what a process takes with it.
fn stopped() -> End {
    End::Failed("the server was stopped before it was done".to_owned())
}
