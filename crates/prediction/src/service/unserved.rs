//! What waits for a version of the model that no node draws. Nothing but a node with that version, or a cancellation,
//! ends it; so it is counted for the metrics, and told once in the log.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;

use super::shared::Shared;
use crate::store::{Board, StoreError};

/// How often it is looked for.
const INTERVAL: Duration = Duration::from_secs(5);
/// After how many looks it is told: servers that are started again are away for a moment.
const LOOKS: u32 = 2;

/// In how many looks in a row something waited for a version.
type Seen = HashMap<String, u32>;

/// Looks for it as long as there is a service.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut seen = Seen::new();
    while let Some(service) = shared.upgrade() {
        if let Err(error) = service.count_unserved(&mut seen).await {
            tracing::debug!(%error, "it is not known what waits for which version");
        }
        drop(service);
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Shared {
    async fn count_unserved(&self, seen: &mut Seen) -> Result<(), StoreError> {
        let waiting = self.store.by_version().await?;
        let mut table = self.table();
        // Versions stay, so that their metrics end at 0.
        for board in table.unserved.values_mut() {
            *board = Board::default();
        }
        for (version, board) in waiting {
            if !table.serves(&version) {
                table.unserved.insert(version, board);
            }
        }
        for (version, Board { waiting, .. }) in &table.unserved {
            if *waiting == 0 {
                if seen.remove(version).is_some_and(|looks| looks >= LOOKS) {
                    tracing::info!(version, "no prediction waits any more for a version that no server draws");
                }
                continue;
            }
            let looks = seen.entry(version.clone()).or_default();
            *looks = looks.saturating_add(1);
            if *looks != LOOKS {
                continue;
            }
            if table.model().is_some_and(|model| model.version == *version) {
                tracing::warn!(version, waiting, "predictions wait, and no server has a worker for them");
            } else {
                tracing::warn!(
                    version,
                    waiting,
                    "predictions wait for a version of the model that no server has; start one with it, or cancel them"
                );
            }
        }
        Ok(())
    }
}
