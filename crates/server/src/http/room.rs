//! Room for what is large: bodies of requests and pages of lists, of all requests together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::Error;

/// Bodies up to this size are parsed where they were read, and do not count for the sum.
pub(super) const SMALL: usize = 64 << 10;
/// The bytes of larger bodies that are held at once, unless one body may be larger.
pub(super) const MAX_SUM: u64 = 256 << 20;
/// How long a body waits for others before its request is refused.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Pages that are made at once.
const MAX_PAGES: usize = 4;

/// The room for bodies of all requests, in KiB.
#[derive(Clone, Debug)]
pub(crate) struct Bodies(pub(super) Arc<Semaphore>);

impl Bodies {
    /// Room for the largest body, and for several that are smaller.
    pub(crate) fn new(max_body: u64) -> Self {
        let kib = usize::try_from(max_body.max(MAX_SUM).div_ceil(1024)).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))))
    }

    /// Reserves room for what a body has grown by. `patience` is what is left of its time to wait: if every piece had
    /// as much, bodies that hold a part each would keep each other waiting.
    pub(super) async fn reserve(
        &self,
        held: &mut Option<OwnedSemaphorePermit>,
        length: usize,
        patience: &mut Duration,
    ) -> Result<(), Error> {
        let kib = length.saturating_sub(SMALL).div_ceil(1024);
        let missing = kib.saturating_sub(held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.0).acquire_many_owned(u32::try_from(missing).unwrap_or(u32::MAX));
        let begun = Instant::now();
        let Ok(Ok(more)) = tokio::time::timeout(*patience, more).await else { return Err(Error::BodiesFull) };
        *patience = patience.saturating_sub(begun.elapsed());
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

/// The room for pages of lists.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    made: Arc<Semaphore>,
    read: Bodies,
}

impl Default for Pages {
    fn default() -> Self {
        Self { made: Arc::new(Semaphore::new(MAX_PAGES)), read: Bodies::new(0) }
    }
}

impl Pages {
    /// Waits until a page can be made.
    pub(super) async fn begin(&self) -> Result<OwnedSemaphorePermit, Error> {
        match tokio::time::timeout(PATIENCE, Arc::clone(&self.made).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Error::PagesFull),
        }
    }

    /// Reserves room for a page until it is sent.
    pub(super) async fn hold(&self, length: usize) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let (mut room, mut patience) = (None, PATIENCE);
        self.read.reserve(&mut room, length, &mut patience).await.map_err(|_| Error::PagesFull)?;
        Ok(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pages_are_bounded_in_number_and_in_sum() {
        let pages = Pages::default();
        let mut made = Vec::new();
        for _ in 0..MAX_PAGES {
            made.push(pages.begin().await.unwrap());
        }
        assert!(matches!(pages.begin().await, Err(Error::PagesFull)));
        made.pop();
        assert!(pages.begin().await.is_ok());

        let large = MAX_SUM as usize + SMALL;
        let held = pages.hold(large).await.unwrap();
        assert!(pages.hold(SMALL).await.unwrap().is_none(), "a small one takes no room");
        assert!(matches!(pages.hold(SMALL + 1).await, Err(Error::PagesFull)));
        drop(held);
        assert!(pages.hold(large).await.is_ok(), "it is returned");
    }
}
