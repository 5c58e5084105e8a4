//! The sign of life of this node. A store uses it to look after what it could not write; a fleet, to know who is there.

use std::sync::Weak;
use std::time::Duration;

use super::shared::Shared;
use crate::store::Beat;

/// How often it is given.
const INTERVAL: Duration = Duration::from_secs(1);

/// Beats as long as there is a service.
pub(super) async fn run(shared: Weak<Shared>) {
    while let Some(service) = shared.upgrade() {
        let about = service.table().about();
        match service.store.beat(&about, Vec::new()).await {
            Ok(Beat::Alive { .. }) => {}
            // The store refuses what this node claimed before, so nothing of it is reported.
            Ok(Beat::Dead) => tracing::warn!("this server was taken for dead; it continues under a new name"),
            Err(error) => tracing::error!(%error, "the store does not answer"),
        }
        drop(service);
        tokio::time::sleep(INTERVAL).await;
    }
}
