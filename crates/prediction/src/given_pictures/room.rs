//! What receives pictures, and how many at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::decode::MAX_PIXELS;
use super::fetch::Fetcher;
use super::{Full, PATIENCE};
use crate::outgoing::Gate;

/// Pixels that a permit is for.
const UNIT: u64 = 1000;
/// The bytes, in KiB, of the pictures of predictions that have not ended, where they are in memory.
const MAX_KEPT: usize = 512 << 10;
/// Bytes that a permit is for.
const KIB: usize = 1024;

/// Receives pictures, and bounds how many at once.
#[derive(Debug)]
pub(crate) struct PictureIntake {
    pub(crate) fetcher: Fetcher,
    pub(crate) pixels: PixelRoom,
    kept: Arc<Semaphore>,
}

impl PictureIntake {
    pub(crate) fn new(gate: &Gate) -> Result<Self, reqwest::Error> {
        let (fetcher, kept) = (Fetcher::new(gate)?, Arc::new(Semaphore::new(MAX_KEPT)));
        Ok(Self { fetcher, pixels: PixelRoom::default(), kept })
    }

    /// Takes room for pictures that stay in memory, if there is any.
    pub(crate) fn keep(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Full> {
        Arc::clone(&self.kept).try_acquire_many_owned(bytes.div_ceil(KIB) as u32).map_err(|_| Full)
    }
}

/// The room for decoding: that of one of the largest pictures, or of several smaller ones.
#[derive(Clone, Debug)]
pub(crate) struct PixelRoom(Arc<Semaphore>);

impl Default for PixelRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(Self::units(MAX_PIXELS) as usize)))
    }
}

impl PixelRoom {
    fn units(pixels: u64) -> u32 {
        pixels.min(MAX_PIXELS).div_ceil(UNIT) as u32
    }

    /// Waits for room as long as it takes.
    pub(crate) async fn wait(&self, pixels: u64) -> Result<OwnedSemaphorePermit, Full> {
        Arc::clone(&self.0).acquire_many_owned(Self::units(pixels)).await.map_err(|_| Full)
    }

    /// Waits for room for a moment.
    pub(crate) async fn hurry(&self, pixels: u64) -> Result<OwnedSemaphorePermit, Full> {
        tokio::time::timeout(PATIENCE, self.wait(pixels)).await.unwrap_or(Err(Full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_large_picture_is_decoded_alone() {
        let room = PixelRoom::default();
        let large = room.hurry(MAX_PIXELS).await.unwrap();
        assert!(matches!(room.hurry(1).await, Err(Full)));
        drop(large);
        let half = room.hurry(MAX_PIXELS / 2).await.unwrap();
        let other = room.hurry(MAX_PIXELS / 2).await.unwrap();
        assert!(matches!(room.hurry(1).await, Err(Full)));
        let waits = tokio::spawn({
            let room = room.clone();
            async move { room.wait(MAX_PIXELS).await.is_ok() }
        });
        tokio::time::sleep(10 * PATIENCE).await;
        drop((half, other));
        assert!(waits.await.unwrap());
    }
}
