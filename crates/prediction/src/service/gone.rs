//! The end of the last worker: none is left, and none will be started. Whoever waits is answered.
//!
//! A prediction that waits in a store that outlives this process is not lost: its client is told that it waits, and the
//! next process begins with it. In any other store it fails.

use std::sync::Arc;

use super::shared::Shared;
use crate::lifecycle::End;

impl Shared {
    /// No worker is left.
    pub(super) fn on_gone(self: &Arc<Self>) {
        tracing::error!("no worker is left, and none will be started; what waits stays in the store");
        if self.store.durable() {
            let waiting: Vec<_> = self.table().active.values().cloned().collect();
            for active in waiting.into_iter().filter(|active| active.phase().is_left()) {
                active.log("no worker is left; this prediction waits in the store until the server is started again");
            }
        }
        self.gone.cancel();
        // Other nodes go on with what waits.
        if self.store.durable() && !self.table().fleet {
            self.halted.cancel();
        }
        // The task that claims ends what waits in a store that ends with this process.
        self.wake();
    }

    /// How what waits ends when nobody will begin with it, in a store that does not outlive the process.
    pub(super) fn abandoned(&self) -> Option<End> {
        let is_lost = self.gone.is_cancelled() && !self.store.durable();
        let why = || self.table().workers.why_lost().unwrap_or("none could load").to_owned();
        is_lost.then(|| End::Failed(format!("no worker is left, and none will be started: {}", why())))
    }
}
