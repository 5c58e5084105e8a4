//! Previews between nodes: those of what runs elsewhere and is watched here, and of what runs here and is watched
//! there.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use protocol::Command;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::lifecycle::Phase;
use crate::store::StoreError;

/// How often they are looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// The step of the newest preview that was shown to others, by number.
type Shown = HashMap<u64, u32>;

/// Looks for them as long as there is a service.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut shown = Shown::new();
    while let Some(service) = shared.upgrade() {
        let fleet = service.table().fleet;
        if fleet && let Err(error) = service.pass_previews(&mut shown).await {
            tracing::debug!(%error, "previews of other nodes cannot be had");
        }
        drop(service);
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Shared {
    async fn pass_previews(&self, shown: &mut Shown) -> Result<(), StoreError> {
        let (watched, running): (Vec<_>, Vec<_>) = {
            let table = self.table();
            let watched = |active: &&Arc<ActivePrediction>| {
                matches!(active.phase(), Phase::Watched) && active.previews.are_watched_here()
            };
            (table.active.values().filter(watched).cloned().collect(), table.workers.running().cloned().collect())
        };
        if !watched.is_empty() {
            let seqs = watched.iter().map(|active| active.seq()).collect();
            for (seq, preview) in self.store.watch(seqs).await? {
                let Some(active) = watched.iter().find(|active| active.seq() == seq) else { continue };
                if active.previews.newest().is_none_or(|newest| *newest != preview) {
                    active.previews.show(preview);
                }
            }
        }
        shown.retain(|seq, _| running.iter().any(|active| active.seq() == *seq));
        if running.is_empty() {
            return Ok(());
        }
        let new = |active: &Arc<ActivePrediction>| {
            let newest = active.previews.newest()?;
            (shown.get(&active.seq()) != Some(&newest.step)).then(|| (active.seq(), newest))
        };
        let previews: Vec<_> = running.iter().filter_map(new).collect();
        let seqs = running.iter().map(|active| active.seq()).collect();
        let steps: Vec<_> = previews.iter().map(|(seq, preview)| (*seq, preview.step)).collect();
        let asked = self.store.show(seqs, previews).await?;
        shown.extend(steps.into_iter().filter(|(seq, _)| asked.contains(seq)));
        for active in &running {
            let is_asked = asked.contains(&active.seq());
            let was_asked = active.previews.set_watched_elsewhere(is_asked);
            if let Phase::Running { worker, job, .. } = active.phase()
                && is_asked
                && !was_asked
            {
                self.table().workers.slot(worker).send(Command::Preview { job });
            }
        }
        Ok(())
    }
}
