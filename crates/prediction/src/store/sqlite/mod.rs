//! A store in one SQLite file: the default.
//!
//! One thread writes ([`writer`]); readers use connections of their own and never wait for it ([`readers`]). A lock
//! file keeps a second server out, so what waits and who holds what is decided in memory ([`Jobs`]) and written behind
//! where nothing depends on it: a claim that a crash forgets costs a repeated run. What was accepted, ended or asked to
//! stop is on the disk (`synchronous=FULL`) before it is answered.

mod counted;
mod disk;
mod engine;
mod explain;
mod inspect;
mod open;
mod readers;
mod rows;
mod schema;
mod search;
mod shared;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::mutex::lock;
use crate::store::error::StoreError;
use crate::store::jobs::Jobs;
use crate::store::work::Node;
pub use inspect::{Finding, inspect};
use readers::Readers;
use shared::Shared;
use writer::Writer;

/// The engine.
pub struct Sqlite {
    shared: Arc<Shared>,
    node: AtomicU64,
}

impl Sqlite {
    /// Opens the store of a directory, which is made if it is not there, and gives back what its last process held.
    ///
    /// # Errors
    /// If the directory cannot be used, another server uses it, or the file is of a newer version.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let open::Opened { jobs, doomed, unreadable, disk, connection, lock } = open::open(dir)?;
        let readers = Readers::new(disk.file().to_owned());
        let writer = Writer::start(connection, Arc::clone(&disk))?;
        let (jobs, doomed) = (Arc::new(Mutex::new(jobs)), Arc::new(Mutex::new(doomed)));
        let shared = Arc::new(Shared { jobs, doomed, unreadable, disk, readers, writer, _lock: lock });
        shared.end_doomed();
        Ok(Self::node(shared))
    }

    /// Another node of the same store, in the same process.
    #[must_use]
    pub fn join(&self) -> Self {
        Self::node(Arc::clone(&self.shared))
    }

    fn node(shared: Arc<Shared>) -> Self {
        let node = lock(&shared.jobs).register();
        Self { shared, node: AtomicU64::new(node) }
    }

    fn me(&self) -> Node {
        self.node.load(Ordering::Relaxed)
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        lock(&self.shared.jobs)
    }
}
