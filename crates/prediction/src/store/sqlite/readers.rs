//! Connections for reading. They never wait for the writer (WAL), nor it for them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::mutex::lock;
use crate::store::api::Answer;
use crate::store::error::StoreError;

/// Idle connections that are kept.
const MAX_IDLE: usize = 4;

/// The readers of a file.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, idle: Mutex::default() })
    }

    /// Reads off the async threads.
    pub(super) fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'static, T> {
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let connection = readers.take().map_err(|error| error.of(&readers.path))?;
            let read = work(&connection).map_err(|error| error.of(&readers.path));
            readers.give_back(connection);
            read
        });
        Box::pin(async move { task.await.unwrap_or(Err(StoreError::Closed)) })
    }

    /// Closes the connections that are idle.
    pub(super) fn close(&self) {
        lock(&self.idle).clear();
    }

    fn take(&self) -> Result<Connection, StoreError> {
        if let Some(connection) = lock(&self.idle).pop() {
            return Ok(connection);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}
