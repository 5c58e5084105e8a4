//! The one thread that writes.
//!
//! It takes what has gathered since its last commit into one transaction, commits it to the disk, and only then
//! answers, so a burst of predictions shares one flush.
//!
//! What always holds: a job that is answered with an error has changed nothing. If a transaction cannot begin, no job
//! runs. Each job runs in a savepoint, to which its failure rolls back. If SQLite itself rolls the transaction back (a
//! full disk), every job of it fails, and those behind it run in the next one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::disk::Disk;
use crate::mutex::lock;
use crate::store::api::Answer;
use crate::store::error::StoreError;

/// The greatest number of jobs that share a commit.
const MAX_BATCH: usize = 256;

/// A job for the writer.
trait Job: Send {
    /// Whether it runs outside of transactions.
    fn is_plain(&self) -> bool;
    /// Does the work, in the writer's transaction.
    fn run(&mut self, connection: &Connection, file: &Path) -> Result<(), StoreError>;
    /// Answers, after the commit, whose outcome is passed.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Work<W, D, T, U> {
    plain: bool,
    work: Option<W>,
    done: D,
    outcome: Result<T, StoreError>,
    to: oneshot::Sender<Result<U, StoreError>>,
}

impl<W, D, T, U> Job for Work<W, D, T, U>
where
    W: FnOnce(&Connection) -> Result<T, StoreError> + Send,
    D: FnOnce(Result<T, StoreError>) -> Result<U, StoreError> + Send,
    T: Send,
    U: Send,
{
    fn is_plain(&self) -> bool {
        self.plain
    }

    fn run(&mut self, connection: &Connection, file: &Path) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.outcome = catch_unwind(AssertUnwindSafe(|| work(connection)))
            .unwrap_or_else(|_| Err(StoreError::Engine("a write has panicked; the log says where".to_owned())))
            .map_err(|error| error.of(file));
        self.outcome.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, done, to, .. } = *self;
        _ = to.send(done(committed.and(outcome)));
    }
}

/// A handle to the writer, whose thread ends with it.
pub(super) struct Writer {
    // Only ever empty while it is dropped. Calls of one thread are queued in their order.
    jobs: Mutex<Option<Sender<Box<dyn Job>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection, disk: Arc<Disk>) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || Thread { connection, disk, queue }.run())
            .map_err(|error| StoreError::Engine(format!("cannot start a thread: {error}")))?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), thread: Some(thread) })
    }

    /// Queues a write at once. `done` is called after its commit, or its failure, and before later writes are answered.
    pub(super) fn write<T: Send + 'static, U: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        done: impl FnOnce(Result<T, StoreError>) -> Result<U, StoreError> + Send + 'static,
    ) -> Answer<'static, U> {
        self.queue(false, work, done)
    }

    /// Queues what cannot be done in a transaction.
    pub(super) fn plain<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'static, T> {
        self.queue(true, work, |outcome| outcome)
    }

    fn queue<T: Send + 'static, U: Send + 'static>(
        &self,
        plain: bool,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        done: impl FnOnce(Result<T, StoreError>) -> Result<U, StoreError> + Send + 'static,
    ) -> Answer<'static, U> {
        let (to, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Work { plain, work: Some(work), done, outcome: Err(StoreError::Closed), to });
        let jobs = lock(&self.jobs);
        let refused = match &*jobs {
            Some(jobs) => jobs.send(job).err().map(|refused| refused.0),
            None => Some(job),
        };
        drop(jobs);
        if let Some(job) = refused {
            job.answer(Err(StoreError::Closed));
        }
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    connection: Connection,
    disk: Arc<Disk>,
    queue: Receiver<Box<dyn Job>>,
}

impl Thread {
    fn run(self) {
        let mut next = None;
        loop {
            let mut first = match next.take() {
                Some(job) => job,
                None => match self.queue.recv_timeout(self.disk.patience()) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => {
                        self.look();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            self.disk.look_now_and_then();
            if first.is_plain() {
                let ran = first.run(&self.connection, self.disk.file());
                self.disk.note(&ran);
                first.answer(ran);
            } else {
                next = self.batch(first);
            }
        }
        self.disk.close();
        let _ = self.connection.close();
    }

    /// Runs a job and those that have gathered behind it. Returns one that has to run outside of the transaction.
    fn batch(&self, first: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let (mut ran, mut failed, mut left) = (Vec::new(), None, None);
        let begun = self.connection.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from);
        let mut committed = begun.map_err(|error| error.of(self.disk.file()));
        let mut next = Some(first);
        while let Some(mut job) = next.take() {
            if committed.is_ok()
                && let Err(error) = savepoint(&self.connection, self.disk.file(), &mut *job)
            {
                let error = error.of(self.disk.file());
                if self.connection.is_autocommit() {
                    committed = Err(error);
                    ran.push(job);
                    break;
                }
                failed = Some(error);
            }
            ran.push(job);
            if ran.len() < MAX_BATCH
                && let Ok(job) = self.queue.try_recv()
            {
                let to = if job.is_plain() { &mut left } else { &mut next };
                *to = Some(job);
            }
        }
        if committed.is_ok() {
            committed =
                self.connection.execute_batch("COMMIT").map_err(|error| StoreError::from(error).of(self.disk.file()));
        }
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.disk.note(&committed.clone().and(failed.map_or(Ok(()), Err)));
        for job in ran {
            job.answer(committed.clone());
        }
        left
    }

    /// Looks after the disk while nothing is asked; after a failure, whether it can be written again.
    fn look(&self) {
        self.disk.look();
        if self.disk.has_failed() {
            let probe = "BEGIN IMMEDIATE; UPDATE totals SET count = count; COMMIT;";
            let probed =
                self.connection.execute_batch(probe).map_err(|error| StoreError::from(error).of(self.disk.file()));
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            self.disk.note(&probed);
        }
    }
}

/// Runs a job so that its failure undoes it.
fn savepoint(connection: &Connection, file: &Path, job: &mut dyn Job) -> Result<(), StoreError> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let ran = job.run(connection, file);
    // After an automatic rollback there is no savepoint either.
    if ran.is_err() && !connection.is_autocommit() {
        connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    if !connection.is_autocommit() {
        connection.prepare_cached("RELEASE job")?.execute([])?;
    }
    ran
}
