//! What is known of the pictures of a prediction while it is active.

use std::sync::OnceLock;

use tokio::sync::OwnedSemaphorePermit;

/// The hashes of given pictures, once a worker got them, and the room that their files take.
#[derive(Debug, Default)]
pub(crate) struct Given {
    room: OnceLock<OwnedSemaphorePermit>,
    hashes: OnceLock<Vec<(String, String)>>,
}

impl Given {
    /// Holds room until the prediction has ended.
    pub(crate) fn hold(&self, room: Option<OwnedSemaphorePermit>) {
        if let Some(room) = room {
            let _ = self.room.set(room);
        }
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
