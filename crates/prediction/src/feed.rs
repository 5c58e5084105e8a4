//! The events of a prediction, numbered and in order, for its subscribers.
//!
//! A feed keeps the newest events. A [`Reader`] reads from any point on and then waits for more, so replayed and live
//! events are the same. A reader that is too slow or too late for events that are gone learns how many it missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::mutex::lock;
use crate::wire::Prediction;

/// The number of events that a reader may be behind.
const MAX_LAG: usize = 1024;

/// An event of a prediction.
#[derive(Clone, Debug)]
pub enum Event {
    /// A worker has begun.
    Start,
    /// A line was added to the logs; it includes its line break.
    Log(Arc<str>),
    /// Progress was made.
    Progress {
        /// The share of the work that is done, 0 to 1.
        progress: f64,
        /// Denoising steps done.
        step: u32,
        /// Denoising steps in all.
        steps: u32,
        /// Estimated seconds until the end.
        seconds_left: Option<f64>,
    },
    /// A metric became known.
    Metric {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// The picture is done.
    Output(Arc<str>, u32),
    /// The prediction has ended. Always the last event.
    Completed(Arc<Prediction>),
}

/// An event and its number; numbers begin at 1, or at one of its server's own, and have no gaps.
#[derive(Clone, Debug)]
pub struct Item {
    /// The number.
    pub id: u64,
    /// What happened.
    pub event: Event,
}

/// The events of one prediction.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The newest events, without gaps.
    items: Mutex<VecDeque<Item>>,
    /// The number of the newest event, for which readers wait.
    newest: watch::Sender<u64>,
    /// The number of events that later readers can replay.
    history: usize,
    /// The number before that of the first event.
    base: u64,
}

impl Feed {
    /// A feed whose newest `history` events can be replayed.
    pub(crate) fn new(history: usize) -> Self {
        Self::from(history, 0)
    }

    /// One of several processes' feeds of one prediction: its numbers are of no other's.
    pub(crate) fn apart(history: usize) -> Self {
        // Browsers read them as numbers of 53 bits.
        let base = u64::from(uuid::Uuid::new_v4().as_fields().0) << 20;
        Self::from(history, base.max(1 << 20))
    }

    fn from(history: usize, base: u64) -> Self {
        Self { items: Mutex::default(), newest: watch::Sender::new(base), history, base }
    }

    /// Adds an event.
    pub(crate) fn push(&self, event: Event) {
        let mut items = lock(&self.items);
        let id = *self.newest.borrow() + 1;
        if items.len() == self.history.max(MAX_LAG) {
            items.pop_front();
        }
        items.push_back(Item { id, event });
        self.newest.send_replace(id);
    }

    /// Whether nothing has happened yet.
    pub(crate) fn is_empty(&self) -> bool {
        *self.newest.borrow() == self.base
    }

    /// Reads the feed from the event after number `after` on.
    pub(crate) fn reader(self: &Arc<Self>, after: u64) -> Reader {
        let next = after.max(self.base).saturating_add(1);
        Reader { newest: self.newest.subscribe(), feed: Arc::clone(self), next, missed: None, over: false }
    }

    /// Reads the feed from the event after number `after` on, as far back as it can be replayed. A number that does not
    /// exist comes from another server or an earlier one, and everything is replayed.
    pub(crate) fn replay(self: &Arc<Self>, after: u64) -> Reader {
        let newest = *self.newest.borrow();
        let mut reader = self.reader(if after > newest { 0 } else { after });
        let shown = (newest + 1).saturating_sub(self.history as u64).max(self.base + 1);
        reader.missed = shown.checked_sub(reader.next).filter(|&missed| missed > 0);
        reader.next = reader.next.max(shown);
        reader
    }

    /// The event of a number, or the oldest kept number if it is gone.
    fn find(&self, id: u64) -> Found {
        let items = lock(&self.items);
        match items.front() {
            Some(first) if first.id > id => Found::Gone(first.id),
            Some(first) => items.get((id - first.id) as usize).cloned().map_or(Found::NotYet, Found::Item),
            None => Found::NotYet,
        }
    }
}

enum Found {
    Item(Item),
    Gone(u64),
    NotYet,
}

/// A reader of a feed.
#[derive(Debug)]
pub(crate) struct Reader {
    feed: Arc<Feed>,
    newest: watch::Receiver<u64>,
    /// The number of the event to read next.
    next: u64,
    /// The number of events that were gone before the first read, which reports it.
    missed: Option<u64>,
    /// Whether it has read the last event.
    over: bool,
}

impl Reader {
    /// The next event; `Err` with the number of missed events; `None` after [`Event::Completed`].
    pub(crate) async fn next(&mut self) -> Option<Result<Item, u64>> {
        if self.over {
            return None;
        }
        if let Some(missed) = self.missed.take() {
            return Some(Err(missed));
        }
        loop {
            self.newest.borrow_and_update();
            match self.feed.find(self.next) {
                Found::Item(item) => {
                    self.next += 1;
                    self.over = matches!(item.event, Event::Completed(_));
                    return Some(Ok(item));
                }
                Found::Gone(oldest) => {
                    let missed = oldest - self.next;
                    self.next = oldest;
                    return Some(Err(missed));
                }
                // The feed is held here, so its sender is alive and the wait ends with the next event.
                Found::NotYet => self.newest.changed().await.ok()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_replay_wait_and_learn_what_they_missed() {
        let feed = Arc::new(Feed::new(3));
        feed.push(Event::Start);
        let mut early = feed.reader(0);
        assert_eq!(early.next().await.unwrap().unwrap().id, 1);
        let waiting = tokio::spawn(async move { (early.next().await.unwrap().unwrap().id, early) });
        tokio::task::yield_now().await;
        feed.push(Event::Log("a\n".into()));
        let (id, mut early) = waiting.await.unwrap();
        assert_eq!(id, 2);
        for _ in 0..MAX_LAG + 5 {
            feed.push(Event::Log("b\n".into()));
        }
        assert_eq!(early.next().await.unwrap().unwrap_err(), 5);
        assert_eq!(early.next().await.unwrap().unwrap().id, 8);
    }

    #[tokio::test]
    async fn who_comes_later_is_shown_the_history() {
        for (history, after, expected) in
            [(3, 0, Err(2)), (3, 2, Ok(3)), (5, 9, Ok(1)), (3, 5, Ok(6)), (0, 0, Err(5)), (5, 0, Ok(1))]
        {
            let feed = Arc::new(Feed::new(history));
            (0..5).for_each(|_| feed.push(Event::Start));
            let mut late = feed.replay(after);
            (0..5).for_each(|_| feed.push(Event::Start));
            let first = late.next().await.unwrap().map(|item| item.id);
            assert_eq!(first, expected, "{history} {after}");
        }
    }
}
