//! Those who wait for a prediction: the [`Ticket`] of whoever asked for it, and [`Follower`]s of its events.
//!
//! What always holds: a prediction stops when its ticket is dropped, unless it was detached; and one whose ticket was
//! made a follower stops when the last of all its followers leaves.

use std::sync::Arc;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::feed::{Item, Reader};
use crate::lifecycle::Phase;
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

    /// The prediction as it is now.
    pub async fn snapshot(&self) -> Prediction {
        self.shared.show(&self.active).await
    }

    /// Waits for the end; `None` if the server stops first and the prediction waits for the next one.
    pub async fn end(&mut self) -> Option<Arc<Prediction>> {
        match self.active.until(Phase::is_over).await {
            Phase::Ended(prediction) => Some(prediction),
            _ => None,
        }
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
}

impl Follower {
    fn new(shared: &Arc<Shared>, active: &Arc<ActivePrediction>, reader: Reader, cancel_when_unfollowed: bool) -> Self {
        active.follow(cancel_when_unfollowed);
        Self { shared: Arc::clone(shared), active: Arc::clone(active), reader }
    }

    /// The id of the prediction.
    pub fn id(&self) -> &str {
        self.active.id()
    }

    /// The next event; `Err` with how many were missed; `None` after the end.
    pub async fn next(&mut self) -> Option<Result<Item, u64>> {
        self.reader.next().await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if self.active.unfollow() {
            self.shared.give_up(&self.active);
        }
    }
}

impl Shared {
    /// Follows a prediction that has not ended, from the event after number `after` on.
    pub(super) fn follow(self: &Arc<Self>, id: &str, after: u64) -> Option<Follower> {
        let active = self.active(id)?;
        let reader = active.feed.replay(after);
        Some(Follower::new(self, &active, reader, false))
    }
}
