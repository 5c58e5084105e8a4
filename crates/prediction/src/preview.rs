//! Previews of a prediction that runs: small pictures of how far it is, for those who watch.
//!
//! Only the newest is kept, and nothing of it is stored. A worker is asked for one only while somebody watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::watch;

/// About how many previews a prediction has from beginning to end.
const COUNT: u32 = 16;

/// A preview.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// Denoising steps done.
    pub step: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// A PNG as a data URI.
    pub image: Arc<str>,
}

/// The previews of one prediction.
#[derive(Debug, Default)]
pub(crate) struct Previews {
    newest: watch::Sender<Option<Arc<Preview>>>,
    /// The step after which the last one was asked for.
    asked: AtomicU32,
    /// Whether somebody watches on another node.
    elsewhere: AtomicBool,
}

impl Previews {
    /// Whether one is to be asked for after `step` of `of` steps: if somebody watches, and not after every step of
    /// many. Then it counts as asked for.
    pub(crate) fn is_due(&self, step: u32, of: u32) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        // A prediction that was begun again is at a lower step than before.
        let asked = if step < asked { 0 } else { asked };
        let due = self.are_watched() && step >= asked + of.div_ceil(COUNT).max(1);
        if due {
            self.asked.store(step, Ordering::Relaxed);
        }
        due
    }

    fn are_watched(&self) -> bool {
        self.are_watched_here() || self.elsewhere.load(Ordering::Relaxed)
    }

    /// Whether somebody watches on this node.
    pub(crate) fn are_watched_here(&self) -> bool {
        self.newest.receiver_count() > 0
    }

    /// Whether somebody watches on another node, from now on; what it was before.
    pub(crate) fn set_watched_elsewhere(&self, watched: bool) -> bool {
        self.elsewhere.swap(watched, Ordering::Relaxed)
    }

    /// The newest one.
    pub(crate) fn newest(&self) -> Option<Arc<Preview>> {
        self.newest.borrow().clone()
    }

    /// Shows a preview to all who watch.
    pub(crate) fn show(&self, preview: Preview) {
        self.newest.send_replace(Some(Arc::new(preview)));
    }

    /// Watches; the newest preview that there is already is the first.
    pub(crate) fn watch(&self) -> Watcher {
        let mut newest = self.newest.subscribe();
        newest.mark_changed();
        Watcher { newest }
    }
}

/// One who watches previews.
#[derive(Debug)]
pub(crate) struct Watcher {
    newest: watch::Receiver<Option<Arc<Preview>>>,
}

impl Watcher {
    /// The next preview, without those that were replaced meanwhile. May be dropped while it waits; never returns after
    /// the prediction is gone.
    pub(crate) async fn next(&mut self) -> Arc<Preview> {
        loop {
            if self.newest.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(preview) = self.newest.borrow_and_update().clone() {
                return preview;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview(step: u32) -> Preview {
        Preview { step, width: 1, height: 1, image: "data:".into() }
    }

    #[test]
    fn previews_are_asked_for_while_somebody_watches() {
        let previews = Previews::default();
        assert!(!previews.is_due(10, 50), "nobody watches");
        let watcher = previews.watch();
        let due = |of: u32| (0..=of).filter(|&step| previews.is_due(step, of)).collect::<Vec<_>>();
        assert_eq!(due(50), [4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48]);
        assert_eq!(due(3), [1, 2, 3], "begun again");
        assert!(!previews.is_due(3, 3), "a step has several events");
        drop(watcher);
        assert!(!previews.is_due(10, 50));
    }

    #[tokio::test]
    async fn only_the_newest_is_seen() {
        let previews = Previews::default();
        let mut early = previews.watch();
        previews.show(preview(1));
        previews.show(preview(2));
        assert_eq!(early.next().await.step, 2);
        let mut late = previews.watch();
        assert_eq!(late.next().await.step, 2, "who comes later sees it at once");
        let waiting = tokio::spawn(async move { early.next().await.step });
        tokio::task::yield_now().await;
        previews.show(preview(3));
        assert_eq!(waiting.await.unwrap(), 3);
    }
}
