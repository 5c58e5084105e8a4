//! Those who wait for a prediction: the [`Ticket`] of whoever asked for it, and [`Follower`]s of its events.
//!
//! What always holds: a prediction stops when its ticket is dropped, unless it was let go; and one whose ticket was made a follower
//! stops when the last of all its followers leaves.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Service, Shared};
use crate::feed::{Item, Reader};
use crate::live::{Live, Stage, Stop};
use crate::wire::Prediction;

/// A handle to a new prediction, which stops it when it is dropped.
pub struct Ticket {
    shared: Arc<Shared>,
    live: Arc<Live>,
    stage: watch::Receiver<Stage>,
    goes_on: bool,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_tuple("Ticket").field(&self.live.id).finish()
    }
}

impl Ticket {
    pub(super) fn new(shared: Arc<Shared>, live: Arc<Live>, goes_on: bool) -> Self {
        let stage = live.stage.subscribe();
        Self { shared, live, stage, goes_on }
    }

    /// The prediction as it is now.
    pub fn snapshot(&self) -> Prediction {
        self.shared.look(&self.live.id).unwrap_or_else(|| self.live.snapshot())
    }

    /// Waits for the end; `None` if the server stops first and the prediction waits for the next one.
    pub async fn end(&mut self) -> Option<Arc<Prediction>> {
        let gone = |stage: &Stage| matches!(stage, Stage::Ended(_) | Stage::HandedBack | Stage::Refused(_));
        match self.stage.wait_for(gone).await.as_deref() {
            Ok(Stage::Ended(prediction)) => Some(Arc::clone(prediction)),
            _ => None,
        }
    }

    /// The prediction goes on by itself from now on.
    pub fn let_go(&mut self) {
        self.goes_on = true;
    }

    /// Follows what happens, from the beginning. The prediction goes on as long as anybody follows it.
    pub fn follow(mut self) -> Follower {
        let follower = Follower::new(&self.shared, &self.live, self.live.feed.reader(0));
        self.live.state().tied = true;
        self.let_go();
        follower
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.goes_on {
            self.shared.stop(&self.live, Stop::Canceled);
        }
    }
}

/// One who follows a prediction.
pub struct Follower {
    shared: Arc<Shared>,
    live: Arc<Live>,
    reader: Reader,
}

impl Follower {
    fn new(shared: &Arc<Shared>, live: &Arc<Live>, reader: Reader) -> Self {
        live.state().followers += 1;
        Self { shared: Arc::clone(shared), live: Arc::clone(live), reader }
    }

    /// The id of the prediction.
    pub fn id(&self) -> &str {
        &self.live.id
    }

    /// The next event; `Err` with how many were missed; `None` after the end.
    pub async fn next(&mut self) -> Option<Result<Item, u64>> {
        self.reader.next().await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.live.state();
        state.followers -= 1;
        let last = state.tied && state.followers == 0;
        drop(state);
        if last {
            self.shared.stop(&self.live, Stop::Canceled);
        }
    }
}

impl Service {
    /// Follows a prediction that waits or runs, from the event after number `after` on.
    pub fn follow(&self, id: &str, after: u64) -> Option<Follower> {
        let live = self.shared.table().live.get(id).cloned()?;
        let reader = live.feed.replay(after);
        Some(Follower::new(&self.shared, &live, reader))
    }
}
