//! Those who wait for a prediction: the [`Ticket`] of whoever asked for it, and [`Follower`]s of its events.
//!
//! What always holds: a prediction stops when its ticket is dropped, unless it was detached; and one whose ticket was
//! made a follower stops when the last of all its followers leaves.

use std::sync::Arc;

use protocol::Command;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::feed::{Item, Reader};
use crate::lifecycle::Phase;
use crate::preview::{Preview, Watcher};
use crate::wire::Prediction;

/// A handle to a new prediction, which stops it when it is dropped.
pub struct Ticket {
    shared: Arc<Shared>,
    active: Arc<ActivePrediction>,
    /// It continues without this ticket.
    detached: bool,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_tuple("Ticket").field(&self.active.id()).finish()
    }
}

impl Ticket {
    pub(super) fn new(shared: Arc<Shared>, active: Arc<ActivePrediction>, detached: bool) -> Self {
        Self { shared, active, detached }
    }

    /// The id of the prediction.
    pub fn id(&self) -> &str {
        self.active.id()
    }

    /// The prediction as it is now.
    pub async fn snapshot(&self) -> Prediction {
        self.shared.show(&self.active).await
    }

    /// Waits for the end; `None` if the prediction will not end in this process: it waits in the store for the next.
    pub async fn end(&mut self) -> Option<Arc<Prediction>> {
        let phase = tokio::select! {
            biased;
            phase = self.active.until(Phase::is_over) => phase,
            phase = self.shared.until_left(&self.active) => phase,
        };
        match phase {
            Phase::Ended(prediction) => Some(prediction),
            _ => None,
        }
    }

    /// Whether the prediction continues without this ticket.
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// The prediction continues without this ticket from now on.
    pub fn detach(&mut self) {
        self.detached = true;
    }

    /// Follows what happens, from the beginning. The prediction continues as long as anybody follows it.
    pub fn follow(mut self) -> Follower {
        self.detach();
        Follower::new(&self.shared, &self.active, self.active.feed.reader(0), true)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.detached {
            self.shared.give_up(&self.active);
        }
    }
}

/// One who follows a prediction.
pub struct Follower {
    shared: Arc<Shared>,
    active: Arc<ActivePrediction>,
    reader: Reader,
    watcher: Option<Watcher>,
}

/// What a follower learns.
#[derive(Clone, Debug)]
pub enum News {
    /// The next event.
    Item(Item),
    /// How many events were missed.
    Missed(u64),
    /// How far the prediction is, for those who watch.
    Preview(Arc<Preview>),
}

impl Follower {
    fn new(shared: &Arc<Shared>, active: &Arc<ActivePrediction>, reader: Reader, cancel_when_unfollowed: bool) -> Self {
        active.follow(cancel_when_unfollowed);
        Self { shared: Arc::clone(shared), active: Arc::clone(active), reader, watcher: None }
    }

    /// The id of the prediction.
    pub fn id(&self) -> &str {
        self.active.id()
    }

    /// Watches previews, too.
    #[must_use]
    pub fn watching(mut self) -> Self {
        self.watcher = Some(self.active.previews.watch());
        // Otherwise who comes in the middle of a long step has to wait for its end.
        let begun = self.active.snapshot().metrics.step.is_some_and(|step| step > 0);
        if let Phase::Running { worker, job, .. } = self.active.phase()
            && begun
        {
            self.shared.table().workers.slot(worker).send(Command::Preview { job });
        }
        self
    }

    /// What happens next; `None` after the end, or if there will be none in this process.
    pub async fn next(&mut self) -> Option<News> {
        let watcher = &mut self.watcher;
        let preview = async {
            match watcher {
                Some(watcher) => watcher.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An event is never kept waiting by a preview.
            biased;
            item = self.reader.next() => Some(item?.map_or_else(News::Missed, News::Item)),
            _ = self.shared.until_left(&self.active) => None,
            _ = self.active.until(|phase| matches!(phase, Phase::Elsewhere | Phase::Refused(_))) => None,
            preview = preview => Some(News::Preview(preview)),
        }
    }

    /// Why no end was among the events, if that is because no worker is left.
    pub fn left(&self) -> Option<&'static str> {
        let phase = self.active.phase();
        let waits = self.shared.gone.is_cancelled() && (phase.is_left() || matches!(phase, Phase::Elsewhere));
        waits.then_some("no worker is left; the prediction waits in the store until the server is started again")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Who follows something that waits for the next process was sent away.
        let was_left = self.shared.halted.is_cancelled() && self.active.phase().is_left();
        if self.active.unfollow() && !was_left {
            self.shared.give_up(&self.active);
        }
    }
}

impl Shared {
    /// Waits until a prediction waits in the store and will not begin in this process.
    async fn until_left(&self, active: &ActivePrediction) -> Phase {
        self.halted.cancelled().await;
        active.until(|phase| phase.is_left() || matches!(phase, Phase::Elsewhere)).await
    }

    /// A ticket to a prediction that has not ended, which continues without it.
    pub(super) fn join(self: &Arc<Self>, active: Arc<ActivePrediction>) -> Ticket {
        Ticket::new(Arc::clone(self), active, true)
    }

    /// Follows a prediction that has not ended, from the event after number `after` on.
    pub(super) fn follow(self: &Arc<Self>, active: &Arc<ActivePrediction>, after: u64) -> Follower {
        let reader = active.feed.replay(after);
        Follower::new(self, active, reader, false)
    }
}
