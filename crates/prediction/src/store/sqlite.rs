//! A store in one SQLite file: the default.
//!
//! One thread writes. It takes what has gathered since its last commit into one transaction, commits it to the disk
//! (`synchronous=FULL`), and only then answers, so a burst of predictions shares one flush. Readers use connections
//! of their own and never wait for the writer (`WAL`). A lock file keeps a second server out.

mod schema;

use std::fs::{self, File};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};
use tokio::sync::oneshot;

use super::{Answer, Query, Record, Retention, Store, StoreError, Stored};
use crate::time::Time;
use crate::wire::Status;

/// Most jobs that share a commit.
const BATCH: usize = 256;
/// Idle connections that are kept for reading.
const READERS: usize = 4;

/// What runs in the writer's transaction; what it returns runs after the commit, with the commit's outcome.
type Job = Box<dyn FnOnce(&Connection) -> Box<dyn FnOnce(Result<(), StoreError>) + Send> + Send>;

/// The engine.
pub struct Sqlite {
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    _lock: File,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Engine(error.to_string())
    }
}

impl Sqlite {
    /// Opens the store of a directory, which is made if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be used, another server uses it, or the file is of a newer version.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let shown = dir.display();
        let fail = |what: &str, error: &dyn std::fmt::Display| {
            StoreError::Engine(format!("{what} `{shown}`: {error}; choose another `--data-dir`, or `none`"))
        };
        fs::create_dir_all(dir).map_err(|error| fail("cannot make the data directory", &error))?;
        let lock = File::create(dir.join("lock")).map_err(|error| fail("cannot write to", &error))?;
        lock.try_lock().map_err(|_| fail("another server uses", &"it is locked"))?;
        let path = dir.join("predictions.sqlite");
        let connection = Connection::open(&path)?;
        // Only a new file takes this up, and only before anything is in it: what is removed then gives its pages back.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        schema::migrate(&connection).map_err(|error| fail("cannot use the predictions in", &error))?;
        let (jobs, queue) = mpsc::channel();
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write(connection, &queue))
            .map_err(|error| StoreError::Engine(error.to_string()))?;
        let readers = Arc::new(Readers { path, idle: Mutex::default() });
        Ok(Self { jobs: Some(jobs), writer: Some(writer), readers, _lock: lock })
    }

    /// Queues a write at once; the answer comes after its commit.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let (to, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let done = work(connection);
            Box::new(move |committed| _ = to.send(committed.and(done)))
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        Box::pin(
            async move { if sent { answer.await.unwrap_or(Err(StoreError::Closed)) } else { Err(StoreError::Closed) } },
        )
    }

    /// Reads off the async threads.
    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let readers = Arc::clone(&self.readers);
        let task = tokio::task::spawn_blocking(move || {
            let connection = readers.take()?;
            let read = work(&connection);
            readers.give_back(connection);
            read
        });
        Box::pin(async move { task.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

struct Readers {
    path: std::path::PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn take(&self) -> Result<Connection, StoreError> {
        if let Some(connection) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(connection);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS {
            idle.push(connection);
        }
    }
}

/// The writer: gathers, commits, answers.
fn write(connection: Connection, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut answers = Vec::new();
        let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from);
        let mut next = Some(first);
        while let Some(job) = next {
            answers.push(job(&connection));
            next = if answers.len() < BATCH { queue.try_recv().ok() } else { None };
        }
        let committed = begun.and_then(|()| Ok(connection.execute_batch("COMMIT")?));
        if let Err(error) = &committed {
            tracing::error!(%error, "the store could not commit");
            let _ = connection.execute_batch("ROLLBACK");
        }
        for answer in answers {
            answer(committed.clone());
        }
    }
    let _ = connection.close();
}

/// Writes a record whole, in place of one with the same id.
fn put(connection: &Connection, record: &Record, picture: Option<&[u8]>, owed: bool) -> Result<(), StoreError> {
    let prediction = &record.prediction;
    let old: Option<u64> = connection
        .prepare_cached("SELECT seq FROM predictions WHERE id = ?1")?
        .query_row([&prediction.id], |row| row.get(0))
        .optional()?;
    if let Some(old) = old.filter(|&old| old != record.seq || picture.is_none()) {
        connection.prepare_cached("DELETE FROM pictures WHERE seq = ?1")?.execute([old])?;
    }
    let text = serde_json::to_string(record).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    if let Some(png) = picture {
        connection
            .prepare_cached("INSERT OR REPLACE INTO pictures VALUES (?1, ?2)")?
            .execute(params![record.seq, png])?;
    }
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO predictions
            (seq, id, status, attempts, started_at, completed_at, owed, bytes, record, file)
            VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
        )?
        .execute(params![
            record.seq,
            prediction.id,
            prediction.status.name(),
            record.attempts,
            prediction.started_at.map(Time::micros),
            prediction.completed_at.map(Time::micros),
            owed,
            picture.map_or(0, <[u8]>::len) as u64,
            text,
            record.file
        ])?;
    Ok(())
}

/// The columns that [`record`] reads.
const COLUMNS: &str = "record, status, attempts, started_at";

/// A record, with what the columns know better.
fn record(row: &Row<'_>) -> rusqlite::Result<Result<Record, StoreError>> {
    let text: String = row.get(0)?;
    let status: String = row.get(1)?;
    let (attempts, started_at) = (row.get(2)?, row.get::<_, Option<i64>>(3)?);
    Ok(serde_json::from_str(&text)
        .map(|record: Record| {
            let mut record = Record { attempts, ..record };
            record.prediction.status = Status::from_name(&status).unwrap_or(record.prediction.status);
            record.prediction.started_at = started_at.map(Time::from_micros);
            record
        })
        .map_err(|error| StoreError::Corrupt(error.to_string())))
}

/// All records of a query.
fn records(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Record>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(values, record)?.collect::<Result<Vec<_>, _>>()?.into_iter().collect()
}

/// The picture of a record.
fn picture(connection: &Connection, seq: u64) -> Result<Option<Arc<[u8]>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT png FROM pictures WHERE seq = ?1")?;
    let png: Option<Vec<u8>> = statement.query_row([seq], |row| row.get(0)).optional()?;
    Ok(png.map(Into::into))
}

/// Removes records and pictures.
fn remove(connection: &Connection, seq: u64) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM pictures WHERE seq = ?1")?.execute([seq])?;
    connection.prepare_cached("DELETE FROM predictions WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

const UNFINISHED: &str = "status IN ('starting', 'processing')";
const ENDED: &str = "status IN ('succeeded', 'failed', 'canceled')";

impl Store for Sqlite {
    fn durable(&self) -> bool {
        true
    }

    fn accept(&self, record: Record) -> Answer<'_, ()> {
        self.write(move |connection| put(connection, &record, None, false))
    }

    fn note(&self, id: &str, seq: u64, started_at: Option<Time>, attempts: u32) -> Answer<'_, ()> {
        let status = if started_at.is_some() { Status::Processing } else { Status::Starting };
        let id = id.to_owned();
        self.write(move |connection| {
            let sql = format!(
                "UPDATE predictions SET status = ?1, started_at = ?2, attempts = ?3
                WHERE seq = ?4 AND id = ?5 AND {UNFINISHED}"
            );
            connection.prepare_cached(&sql)?.execute(params![
                status.name(),
                started_at.map(Time::micros),
                attempts,
                seq,
                id
            ])?;
            Ok(())
        })
    }

    fn finish(&self, record: Record, picture: Option<Arc<[u8]>>, owed: bool) -> Answer<'_, ()> {
        self.write(move |connection| put(connection, &record, picture.as_deref(), owed))
    }

    fn get(&self, id: &str) -> Answer<'_, Option<Stored>> {
        let id = id.to_owned();
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM predictions WHERE id = ?1");
            let Some(record) = records(connection, &sql, [id])?.pop() else { return Ok(None) };
            let picture = picture(connection, record.seq)?;
            Ok(Some(Stored { record, picture }))
        })
    }

    fn file(&self, name: &str) -> Answer<'_, Option<Arc<[u8]>>> {
        let name = name.to_owned();
        self.read(move |connection| {
            let sql = "SELECT seq FROM predictions WHERE file = ?1";
            let seq: Option<u64> = connection.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?;
            seq.map_or(Ok(None), |seq| picture(connection, seq))
        })
    }

    fn list(&self, query: Query) -> Answer<'_, Vec<Record>> {
        self.read(move |connection| {
            let order = if query.after.is_some() { "ASC" } else { "DESC" };
            let sql = format!(
                "SELECT {COLUMNS} FROM predictions
                WHERE seq > ?1 AND seq < ?2 AND (?3 IS NULL OR status = ?3) ORDER BY seq {order} LIMIT ?4"
            );
            let after = query.after.map_or(-1, |after| after as i64);
            let before = query.before.map_or(i64::MAX, |before| before as i64);
            let status = query.status.map(Status::name);
            let mut found = records(connection, &sql, params![after, before, status, query.limit as u64])?;
            if query.after.is_some() {
                found.reverse();
            }
            Ok(found)
        })
    }

    fn delete(&self, id: &str) -> Answer<'_, bool> {
        let id = id.to_owned();
        self.write(move |connection| {
            let sql = format!("SELECT seq FROM predictions WHERE id = ?1 AND {ENDED}");
            let seq: Option<u64> = connection.prepare_cached(&sql)?.query_row([id], |row| row.get(0)).optional()?;
            seq.map(|seq| remove(connection, seq)).transpose().map(|removed| removed.is_some())
        })
    }

    fn unfinished(&self) -> Answer<'_, Vec<Record>> {
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM predictions WHERE {UNFINISHED} ORDER BY seq");
            records(connection, &sql, [])
        })
    }

    fn last_seq(&self) -> Answer<'_, u64> {
        self.read(|connection| {
            Ok(connection.query_row("SELECT coalesce(max(seq), 0) FROM predictions", [], |row| row.get(0))?)
        })
    }

    fn owed(&self) -> Answer<'_, Vec<Record>> {
        self.read(|connection| {
            let sql = format!("SELECT {COLUMNS} FROM predictions WHERE owed ORDER BY seq");
            records(connection, &sql, [])
        })
    }

    fn settle(&self, id: &str, seq: u64) -> Answer<'_, ()> {
        let id = id.to_owned();
        self.write(move |connection| {
            connection
                .prepare_cached("UPDATE predictions SET owed = 0 WHERE seq = ?1 AND id = ?2")?
                .execute(params![seq, id])?;
            Ok(())
        })
    }

    fn sweep(&self, retention: Retention) -> Answer<'_, u64> {
        self.write(move |connection| {
            let oldest = retention.age.map(|age| Time::now().micros().saturating_sub_unsigned(age.as_micros() as u64));
            let sql = format!("SELECT seq, completed_at, bytes, owed FROM predictions WHERE {ENDED} ORDER BY seq DESC");
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            let (mut count, mut bytes, mut gone) = (0, 0, Vec::new());
            while let Some(row) = rows.next()? {
                count += 1;
                bytes += row.get::<_, u64>(2)?;
                let completed: Option<i64> = row.get(1)?;
                let old = oldest.zip(completed).is_some_and(|(oldest, completed)| completed < oldest);
                let beyond = |most: Option<u64>, is: u64| most.is_some_and(|most| is > most);
                if !row.get::<_, bool>(3)? && (old || beyond(retention.count, count) || beyond(retention.bytes, bytes))
                {
                    gone.push(row.get(0)?);
                }
            }
            gone.iter().try_for_each(|&seq| remove(connection, seq))?;
            if !gone.is_empty() {
                // Each step gives one page back.
                let mut vacuum = connection.prepare_cached("PRAGMA incremental_vacuum")?;
                let mut steps = vacuum.query([])?;
                while steps.next()?.is_some() {}
            }
            Ok(gone.len() as u64)
        })
    }
}
