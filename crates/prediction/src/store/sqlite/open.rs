//! Opening the folder of a store.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::disk::{self, Disk};
use super::explain::NO_LOCKS;
use super::rows::{self, Unreadable};
use super::schema;
use crate::cost;
use crate::input::Geometry;
use crate::store::error::StoreError;
use crate::store::jobs::Jobs;
use crate::store::record::Record;
use crate::time::Time;

/// The name of the database.
pub(super) const FILE: &str = "predictions.sqlite";
/// How long a server that was killed may hold its lock: a process that it was about to start holds it, too, until it is
/// another program.
const LEAVING: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(1) };
/// How long a write waits for another program that has locked the database.
const BUSY: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(5) };

/// A folder that was opened.
pub(super) struct Opened {
    pub(super) jobs: Jobs,
    /// Ends of what was interrupted too often or was asked to stop, to be stored.
    pub(super) doomed: Vec<Record>,
    pub(super) unreadable: Arc<Unreadable>,
    pub(super) disk: Arc<Disk>,
    pub(super) connection: Connection,
    pub(super) lock: File,
}

/// Opens a folder. On a full disk it can be read, and records be removed.
pub(super) fn open(dir: &Path) -> Result<Opened, StoreError> {
    let lock = lock(dir)?;
    disk::make_room(dir);
    let file = dir.join(FILE);
    let named = |error: StoreError| error.of(&file);
    let connection = connect(&file).map_err(named)?;
    schema::migrate(&connection).map_err(named)?;
    let disk = Arc::new(Disk::new(dir, file.clone()));
    let unreadable = Arc::<Unreadable>::default();
    let (jobs, doomed) = load(&connection, &unreadable).map_err(named)?;
    Ok(Opened { jobs, doomed, unreadable, disk, connection, lock })
}

/// Makes the folder and keeps other servers out of it.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let shown = dir.display();
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        StoreError::Engine(format!("{what} `{shown}`: {error}; choose another `--data-dir`, or `none`"))
    };
    fs::create_dir_all(dir).map_err(|error| fail("cannot make the data directory", &error))?;
    let path = dir.join("lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let lock = open.map_err(|error| fail("cannot write to", &error))?;
    let until = Instant::now() + LEAVING;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => return Err(fail("another server uses", &"it is locked")),
            Err(TryLockError::Error(error)) => {
                return Err(StoreError::Engine(format!("`{shown}`: {error}; {NO_LOCKS}")));
            }
        }
    }
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY)?;
    // Only a new file takes this up, and only before anything is in it: what is removed then gives its pages back.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Engine(format!("it cannot have a write-ahead log; {NO_LOCKS}")));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    connection.query_row("PRAGMA journal_size_limit = 16777216", [], |_| Ok(()))?;
    Ok(connection)
}

/// Takes up what has not ended, as if the last process had given it back.
fn load(connection: &Connection, unreadable: &Unreadable) -> Result<(Jobs, Vec<Record>), StoreError> {
    let mut jobs = Jobs::default();
    jobs.seen(rows::last_seq(connection)?);
    for seq in rows::owed_seqs(connection)? {
        jobs.owe(seq);
    }
    let mut found = rows::opened(connection, unreadable)?;
    for opened in found.iter_mut().filter(|opened| opened.units <= 0.0) {
        opened.units = cost::units(&opened.record.prediction.input, Geometry::default(), None);
    }
    let doomed = jobs.open(found, Time::now());
    // On a disk that cannot be written this is done by a later start.
    if let Err(error) = rows::release(connection) {
        tracing::error!(%error, "what the last process held could not be noted as waiting");
    }
    Ok((jobs, doomed))
}
