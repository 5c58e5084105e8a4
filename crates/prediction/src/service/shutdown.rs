//! The end of a service: nothing new, a while for what runs, and everything else stays for the next one.

use std::sync::Arc;
use std::time::Duration;

use protocol::Command;
use tokio::time::{Instant, sleep};

use super::Service;
use super::crew::Post;
use crate::live::{End, Stage};

/// How long workers may take to leave, and webhooks to go out.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Service {
    /// Ends the service: what runs may go on for `grace`; what then has not ended goes back to the store, uncounted, or
    /// fails if the store does not outlive the process.
    pub async fn close(&self, grace: Duration) {
        let shared = &self.shared;
        shared.table().closing = true;
        let until = Instant::now() + grace;
        while shared.table().crew.iter().any(|post| post.running().next().is_some()) && Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
        }
        let (held, waiting) = {
            let mut table = shared.table();
            table.crew.iter_mut().for_each(|post| post.send(Command::Shutdown));
            let held: Vec<_> = table.crew.iter_mut().flat_map(Post::dismiss).collect();
            let waiting: Vec<_> = std::mem::take(&mut table.queue).into_values().collect();
            (held, waiting)
        };
        for live in held.iter().chain(&waiting) {
            if !shared.store.durable() {
                shared.conclude(
                    Arc::clone(live),
                    End::Failed("the server was stopped before it was done".to_owned()),
                    None,
                );
                continue;
            }
            let attempts = live.state().attempts;
            let given_back =
                if held.iter().any(|held| Arc::ptr_eq(held, live)) { attempts.saturating_sub(1) } else { attempts };
            if let Err(error) = shared.store.note(&live.id, live.seq, None, given_back).await {
                live.span.in_scope(|| tracing::error!(%error, "a prediction could not be given back to the store"));
            }
            live.take_back(None);
            live.stage.send_replace(Stage::HandedBack);
        }
        shared.tasks.close();
        // What has left its worker may still be on its way to a receiver.
        let rest = until.saturating_duration_since(Instant::now()).max(LAST_WORDS);
        let _ = tokio::time::timeout(rest, shared.tasks.wait()).await;
        shared.webhooks.flush(LAST_WORDS).await;
    }
}
