//! What is known of the pictures of a prediction while it is active.

use std::sync::OnceLock;

use tokio::sync::OwnedSemaphorePermit;

/// The hashes of given pictures, once a worker got them, the size of `image`, and the room that their files take.
#[derive(Debug, Default)]
pub(crate) struct Given {
    room: OnceLock<OwnedSemaphorePermit>,
    hashes: OnceLock<Vec<(String, String)>>,
    image: OnceLock<(u32, u32)>,
}

impl Given {
    /// Holds room until the prediction has ended.
    pub(crate) fn hold(&self, room: Option<OwnedSemaphorePermit>) {
        if let Some(room) = room {
            let _ = self.room.set(room);
        }
    }

    /// The width and height of `image`, if there is one.
    pub(crate) fn sized(&self, image: Option<(u32, u32)>) {
        if let Some(size) = image {
            let _ = self.image.set(size);
        }
    }

    /// The width and height of `image`, as soon as it was received or read.
    pub(crate) fn image(&self) -> Option<(u32, u32)> {
        self.image.get().copied()
    }

    /// They were read. Another worker gets the same.
    pub(crate) fn read(&self, hashes: Vec<(String, String)>) {
        let _ = self.hashes.set(hashes);
    }

    /// Their hashes by field, as [`super::told`] takes them.
    pub(crate) fn hashes(&self) -> &[(String, String)] {
        self.hashes.get().map_or(&[], Vec::as_slice)
    }
}
