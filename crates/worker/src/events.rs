//! Events: frames on stdout.

use std::io::{BufWriter, Stdout};
use std::sync::{Mutex, PoisonError};

use protocol::{Event, frame};

/// The one writer of stdout.
pub(crate) struct Events(Mutex<BufWriter<Stdout>>);

impl Events {
    pub(crate) fn to_stdout() -> Self {
        Self(Mutex::new(BufWriter::new(std::io::stdout())))
    }

    /// Sends an event without bytes.
    pub(crate) fn send(&self, event: &Event) {
        self.send_with(event, &[]);
    }

    /// Sends an event and the bytes it announces. A server that has stopped listening closes stdin, too, and that ends
    /// the worker.
    pub(crate) fn send_with(&self, event: &Event, bytes: &[u8]) {
        let mut stdout = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = frame::write(&mut *stdout, event, bytes) {
            tracing::debug!("cannot write an event: {error}");
        }
    }
}
