//! What the nodes of a store share: its jobs and its threads; how ends are stored and records removed.

use std::fs::File;
use std::sync::{Arc, Mutex};

use super::disk::Disk;
use super::readers::Readers;
use super::rows::{self, Unreadable};
use super::sweep;
use super::writer::Writer;
use crate::mutex::lock;
use crate::store::api::Answer;
use crate::store::ends;
use crate::store::error::StoreError;
use crate::store::jobs::Jobs;
use crate::store::record::{Picture, Record, Retention};
use crate::time::Time;

/// What the nodes of a store share.
pub(super) struct Shared {
    pub(super) jobs: Arc<Mutex<Jobs>>,
    /// Ends that the store itself makes and could not store yet.
    pub(super) doomed: Arc<Mutex<Vec<Record>>>,
    pub(super) unreadable: Arc<Unreadable>,
    pub(super) disk: Arc<Disk>,
    pub(super) readers: Arc<Readers>,
    pub(super) writer: Writer,
    pub(super) _lock: File,
}

type Change = Box<dyn FnOnce(&mut Jobs) + Send>;

/// Undoes a change of the jobs when it is dropped, unless its write was stored.
pub(super) struct Undo {
    pub(super) jobs: Arc<Mutex<Jobs>>,
    undo: Option<Change>,
}

impl Undo {
    pub(super) fn new(jobs: &Arc<Mutex<Jobs>>, undo: impl FnOnce(&mut Jobs) + Send + 'static) -> Self {
        Self { jobs: Arc::clone(jobs), undo: Some(Box::new(undo)) }
    }

    pub(super) fn disarm(mut self) {
        self.undo = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take() {
            undo(&mut lock(&self.jobs));
        }
    }
}

impl Shared {
    /// Stores the end of a job, and with it what `outcome` makes of it; if that fails, the job is as it was before.
    pub(super) fn end<T: Send + 'static>(
        &self,
        record: Record,
        pictures: Vec<Picture>,
        outcome: impl FnOnce(Box<Record>) -> T + Send + 'static,
    ) -> Answer<'static, T> {
        let (jobs, done, seq) = (Arc::clone(&self.jobs), Arc::clone(&self.jobs), record.seq);
        self.writer.write(
            move |connection| {
                // A wish that was stored before this end counts.
                let (record, pictures) = if lock(&jobs).is_stopped(seq) {
                    (ends::canceled_instead(record), Vec::new())
                } else {
                    (record, pictures)
                };
                rows::end(connection, &record, &pictures, record.owes())?;
                Ok(record)
            },
            move |ended| match ended {
                Ok(record) => {
                    lock(&done).end(seq, record.owes());
                    Ok(outcome(Box::new(record)))
                }
                Err(error) => {
                    lock(&done).keep(seq);
                    Err(error)
                }
            },
        )
    }

    /// Tries to store the ends that the store itself has made. Those that fail are left for the next time.
    pub(super) fn end_doomed(&self) -> Vec<Answer<'static, ()>> {
        let doomed = std::mem::take(&mut *lock(&self.doomed));
        let end = |record: Record| {
            let (jobs, left, ended) = (Arc::clone(&self.jobs), Arc::clone(&self.doomed), record.clone());
            self.writer.write(
                move |connection| rows::end(connection, &record, &[], record.owes()),
                move |stored| {
                    match &stored {
                        Ok(()) => {
                            ends::announce(&ended);
                            lock(&jobs).end(ended.seq, ended.owes());
                        }
                        Err(_) => lock(&left).push(ended),
                    }
                    stored
                },
            )
        };
        doomed.into_iter().map(end).collect()
    }

    /// Removes records; on a full disk, by the room of the reserve.
    pub(super) async fn remove<T: Send + 'static>(
        &self,
        work: impl Fn(&rusqlite::Connection) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        let removed = self.writer.write(work.clone(), |outcome| outcome).await;
        let removed = match removed {
            Err(StoreError::Full(_)) if self.disk.give_up() => self.writer.write(work, |outcome| outcome).await,
            removed => return removed,
        };
        self.disk.look();
        removed
    }

    /// Returns the pages of what was removed to the disk, by a few at a time.
    pub(super) async fn shrink(&self) -> Result<(), StoreError> {
        let disk = Arc::clone(&self.disk);
        while self
            .writer
            .plain({
                let disk = Arc::clone(&disk);
                move |connection| sweep::shrink(connection, disk.is_low())
            })
            .await?
        {}
        Ok(())
    }

    pub(super) async fn sweep(&self, retention: Retention) -> Result<u64, StoreError> {
        let now = Time::now();
        if self.readers.read(move |connection| sweep::choose(connection, &retention, now)).await?.seqs.is_empty() {
            return Ok(0);
        }
        let mut removed = 0;
        loop {
            let sweep::Chosen { seqs, more, .. } =
                self.remove(move |connection| sweep::step(connection, &retention, now)).await?;
            {
                let mut jobs = lock(&self.jobs);
                for &seq in &seqs {
                    jobs.pay(seq);
                }
            }
            removed += seqs.len() as u64;
            match self.shrink().await {
                // There may be room when more is removed.
                Err(StoreError::Full(_)) => {}
                shrunk => shrunk?,
            }
            if !more {
                return Ok(removed);
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The connection that is closed last takes the log with it.
        self.readers.close();
    }
}
