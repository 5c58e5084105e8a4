//! A store in one SQLite file: the default.
//!
//! One thread writes ([`writer`]); readers use connections of their own and never wait for it ([`readers`]). A lock file keeps a second
//! server out, so what waits and who holds what is decided in memory ([`Jobs`]) and written behind where nothing depends on it: a
//! claim that a crash forgets costs a repeated run. What was accepted, ended or asked to stop is on the disk (`synchronous=FULL`)
//! before it is answered.

mod disk;
mod explain;
mod inspect;
mod open;
mod readers;
mod rows;
mod schema;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::api::{Answer, Store};
use super::ends;
use super::error::StoreError;
use super::jobs::{Back, Jobs, Stopping};
use super::record::{Picture, Query, Record, Retention, Stored, Which};
use super::work::{
    About, Accepted, Awaited, Beat, Board, Claim, Claimed, New, News, Node, Outcome, Place, Room, Said, Stopped, Wants,
};
use crate::time::Time;
use disk::Disk;
pub use inspect::{Finding, inspect};
use readers::Readers;
use rows::Unreadable;
use writer::Writer;

/// The engine.
pub struct Sqlite {
    core: Arc<Core>,
    node: AtomicU64,
}

/// What the nodes of a store share.
struct Core {
    jobs: Arc<Mutex<Jobs>>,
    /// Ends that the store itself makes and could not store yet.
    doomed: Arc<Mutex<Vec<Record>>>,
    unreadable: Arc<Unreadable>,
    disk: Arc<Disk>,
    readers: Arc<Readers>,
    writer: Writer,
    _lock: File,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Change = Box<dyn FnOnce(&mut Jobs) + Send>;

/// Undoes a change of the jobs when it is dropped, unless its write was stored.
struct Undo {
    jobs: Arc<Mutex<Jobs>>,
    undo: Option<Change>,
}

impl Undo {
    fn new(jobs: &Arc<Mutex<Jobs>>, undo: impl FnOnce(&mut Jobs) + Send + 'static) -> Self {
        Self { jobs: Arc::clone(jobs), undo: Some(Box::new(undo)) }
    }

    fn disarm(mut self) {
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

/// An answer that is known at once.
fn ready<T: Send + 'static>(value: T) -> Answer<'static, T> {
    Box::pin(std::future::ready(Ok(value)))
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
        let core = Arc::new(Core { jobs, doomed, unreadable, disk, readers, writer, _lock: lock });
        core.end_doomed();
        Ok(Self::node(core))
    }

    /// Another node of the same store, in the same process.
    #[must_use]
    pub fn join(&self) -> Self {
        Self::node(Arc::clone(&self.core))
    }

    fn node(core: Arc<Core>) -> Self {
        let node = lock(&core.jobs).register();
        Self { core, node: AtomicU64::new(node) }
    }

    fn me(&self) -> Node {
        self.node.load(Ordering::Relaxed)
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        lock(&self.core.jobs)
    }
}

impl Core {
    /// Stores the end of a job, and with it what `outcome` makes of it; if that fails, the job is as it was before.
    fn end<T: Send + 'static>(
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
    fn end_doomed(&self) -> Vec<Answer<'static, ()>> {
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
    async fn remove<T: Send + 'static>(
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
    async fn shrink(&self) -> Result<(), StoreError> {
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

    async fn sweep(&self, retention: Retention) -> Result<u64, StoreError> {
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

impl Drop for Core {
    fn drop(&mut self) {
        // The connection that is closed last takes the log with it.
        self.readers.close();
    }
}

impl Store for Sqlite {
    fn durable(&self) -> bool {
        true
    }

    fn trouble(&self) -> Option<String> {
        self.core.disk.trouble()
    }

    fn accept(&self, new: New, room: Room) -> Answer<'_, Accepted> {
        enum Plan {
            New(Box<Record>, super::queue::Entry, Undo),
            Known(u64),
            Full(Board),
        }
        let New { mut record, units, tenant, wire, key, idempotent, inputs } = new;
        let (jobs, done, disk, node) =
            (Arc::clone(&self.core.jobs), Arc::clone(&self.core.jobs), Arc::clone(&self.core.disk), self.me());
        let planned = self.core.writer.write(
            move |connection| {
                if let Some(key) = &key
                    && let Some(seq) = rows::seq_of_key(connection, &tenant, key)?
                {
                    return Ok(Plan::Known(seq));
                }
                if let Some((seq, status, owed)) = rows::known(connection, &record.prediction.id)?
                    && (idempotent || owed || !status.is_terminal())
                {
                    return Ok(Plan::Known(seq));
                }
                disk.admit()?;
                let entry = match lock(&jobs).reserve(node, &tenant, units, &room) {
                    Ok(entry) => entry,
                    Err(board) => return Ok(Plan::Full(board)),
                };
                let undo = Undo::new(&jobs, {
                    let entry = entry.clone();
                    move |jobs| jobs.withdraw(&entry)
                });
                record.seq = entry.turn.seq;
                record.attempts = 0;
                rows::insert(connection, &record, Some(&entry), (wire, key.as_deref()))?;
                rows::add_pictures(connection, record.seq, &inputs)?;
                Ok(Plan::New(Box::new(record), entry, undo))
            },
            move |planned| {
                Ok(match planned? {
                    Plan::New(record, entry, undo) => {
                        let seq = record.seq;
                        undo.disarm();
                        lock(&done).admit(entry, *record, wire, node);
                        Ok(Accepted::New(seq))
                    }
                    Plan::Full(board) => Ok(Accepted::Full(board)),
                    Plan::Known(seq) => Err(seq),
                })
            },
        );
        Box::pin(async move {
            match planned.await? {
                Ok(accepted) => Ok(accepted),
                Err(seq) => {
                    let stored = self.stored(seq).await?;
                    let gone = || StoreError::Engine("the prediction was removed meanwhile; try again".to_owned());
                    Ok(Accepted::Known(Box::new(stored.ok_or_else(gone)?)))
                }
            }
        })
    }

    fn claim(&self, wants: Wants) -> Answer<'_, Vec<Claimed>> {
        let claimed = self.jobs().claim(self.me(), &wants, Time::now());
        if !claimed.is_empty() {
            let notes: Vec<_> =
                claimed.iter().map(|claimed| (Arc::clone(&claimed.record), claimed.claim.token)).collect();
            drop(self.core.writer.write(
                move |connection| notes.iter().try_for_each(|(record, token)| rows::claim(connection, record, *token)),
                |noted| {
                    noted.inspect_err(|error| tracing::error!(%error, "the start of a prediction could not be stored"))
                },
            ));
        }
        ready(claimed)
    }

    fn finish(&self, claim: &Claim, mut record: Record, pictures: Vec<Picture>) -> Answer<'_, Outcome> {
        if !self.jobs().begin_end(claim) {
            return ready(Outcome::Fenced);
        }
        record.seq = claim.seq;
        self.core.end(record, pictures, Outcome::Ended)
    }

    fn give_back(&self, claim: &Claim, counted: bool, logs: String) -> Answer<'_, Outcome> {
        let back = self.jobs().give_back(claim, counted, logs, Time::now());
        match back {
            Back::Fenced => ready(Outcome::Fenced),
            Back::Ends(record) => self.core.end(*record, Vec::new(), Outcome::Ended),
            Back::Waits(record) => self
                .core
                .writer
                .write(move |connection| rows::back(connection, &record), |noted| noted.map(|()| Outcome::Waits)),
        }
    }

    fn stop(&self, id: &str) -> Answer<'_, Stopped> {
        let stopping = self.jobs().stop(id, Time::now());
        match stopping {
            Stopping::TooLate => ready(Stopped::TooLate),
            Stopping::Ends(record) => self.core.end(*record, Vec::new(), Stopped::Ended),
            Stopping::Asks(seq) => {
                let jobs = Arc::clone(&self.core.jobs);
                self.core.writer.write(
                    move |connection| {
                        rows::stop(connection, seq)?;
                        lock(&jobs).ask(seq);
                        Ok(Undo::new(&jobs, move |jobs| jobs.unask(seq)))
                    },
                    |asked| {
                        asked?.disarm();
                        Ok(Stopped::Asked)
                    },
                )
            }
            Stopping::Unknown => {
                let id = id.to_owned();
                let known = self.core.readers.read(move |connection| rows::known(connection, &id));
                Box::pin(async move { Ok(if known.await?.is_some() { Stopped::TooLate } else { Stopped::Unknown }) })
            }
        }
    }

    fn beat(&self, about: &About, said: Vec<Said>) -> Answer<'_, Beat> {
        drop(self.core.end_doomed());
        let mut jobs = self.jobs();
        if !jobs.beat(self.me(), about, said) {
            self.node.store(jobs.register(), Ordering::Relaxed);
            return ready(Beat::Dead);
        }
        ready(Beat::Alive { held: jobs.claims(self.me()), nodes: jobs.nodes(), board: jobs.board() })
    }

    fn reap(&self, node: Node, beat: u64) -> Answer<'_, bool> {
        let Some((back, doomed)) = self.jobs().reap(node, beat, Time::now()) else { return ready(false) };
        let noted = self.core.writer.write(
            move |connection| back.iter().try_for_each(|record| rows::back(connection, record)),
            |noted| {
                noted
                    .inspect_err(|error| tracing::error!(%error, "what a dead node held could not be noted as waiting"))
            },
        );
        lock(&self.core.doomed).extend(doomed);
        let ends = self.core.end_doomed();
        Box::pin(async move {
            // Both are as they should be in memory, and on the disk at the latest when the store is opened again.
            _ = noted.await;
            for end in ends {
                _ = end.await;
            }
            Ok(true)
        })
    }

    fn adopt(&self) -> Answer<'_, Vec<Record>> {
        // Behind the ends that opening or reaping has made.
        let ended = self.core.writer.write(|_| Ok(()), |ended| ended);
        Box::pin(async move {
            _ = ended.await;
            let unreadable = Arc::clone(&self.core.unreadable);
            let mut owed = self.core.readers.read(move |connection| rows::owed(connection, &unreadable)).await?;
            let mut jobs = self.jobs();
            let seqs: Vec<u64> = owed.iter().map(|record| record.seq).collect();
            let mine = jobs.adopt_owed(self.me(), &seqs);
            owed.retain(|record| mine.binary_search(&record.seq).is_ok());
            let mut adopted = jobs.adopt(self.me());
            adopted.append(&mut owed);
            Ok(adopted)
        })
    }

    fn news(&self, of: &[Awaited]) -> Answer<'_, Vec<News>> {
        let (mut news, other) = self.jobs().news(self.me(), of);
        if other.is_empty() {
            return ready(news);
        }
        let read = self.core.readers.read(move |connection| {
            let one = |Awaited { id, seq, .. }: Awaited| {
                let record = rows::read(connection, seq)?.filter(|record| record.prediction.id == id);
                Ok(record.map_or(News::Gone { seq }, |record| News::Ended(Box::new(record))))
            };
            other.into_iter().map(one).collect::<Result<Vec<_>, StoreError>>()
        });
        Box::pin(async move {
            news.extend(read.await?);
            Ok(news)
        })
    }

    fn place(&self, seq: u64) -> Answer<'_, Option<Place>> {
        ready(self.jobs().place(seq))
    }

    fn board(&self) -> Board {
        self.jobs().board()
    }

    fn get(&self, id: &str) -> Answer<'_, Option<Stored>> {
        let jobs = self.jobs();
        if let Some(record) = jobs.find(id).and_then(|seq| jobs.record(seq)) {
            return ready(Some(Stored { record: record.clone(), picture: None, owed: false }));
        }
        let id = id.to_owned();
        self.core.readers.read(move |connection| {
            let Some(seq) = rows::seq(connection, &id)? else { return Ok(None) };
            rows::stored(connection, seq)
        })
    }

    fn picture(&self, id: &str, which: Which) -> Answer<'_, Option<Picture>> {
        let id = id.to_owned();
        self.core.readers.read(move |connection| {
            let Some(seq) = rows::seq(connection, &id)? else { return Ok(None) };
            rows::picture(connection, seq, &which)
        })
    }

    fn add_picture(&self, id: &str, seq: u64, picture: Picture) -> Answer<'_, ()> {
        let id = id.to_owned();
        self.core.writer.write(
            move |connection| match rows::seq(connection, &id)? {
                Some(found) if found == seq => rows::add_pictures(connection, seq, &[picture]),
                _ => Ok(()),
            },
            |added| added,
        )
    }

    fn file(&self, name: &str) -> Answer<'_, Option<Arc<[u8]>>> {
        let name = name.to_owned();
        self.core.readers.read(move |connection| rows::file(connection, &name))
    }

    fn list(&self, query: Query) -> Answer<'_, Vec<Record>> {
        let unreadable = Arc::clone(&self.core.unreadable);
        let listed = self.core.readers.read(move |connection| rows::list(connection, query, &unreadable));
        Box::pin(async move {
            let mut listed = listed.await?;
            let jobs = self.jobs();
            for record in &mut listed {
                if let Some(now) = jobs.record(record.seq) {
                    record.clone_from(now);
                }
            }
            listed.retain(|record| query.status.is_none_or(|status| record.prediction.status == status));
            Ok(listed)
        })
    }

    fn delete(&self, id: &str) -> Answer<'_, bool> {
        let id = id.to_owned();
        Box::pin(async move {
            let removed = self.core.remove(move |connection| rows::delete(connection, &id)).await?;
            if let Some(seq) = removed {
                self.jobs().pay(seq);
                if self.core.disk.is_low() {
                    // The disk is full: what was removed is wanted back at once.
                    if let Err(error) = self.core.shrink().await {
                        tracing::warn!(%error, "the room of a removed prediction could not be returned to the disk");
                    }
                }
            }
            Ok(removed.is_some())
        })
    }

    fn mark_delivered(&self, id: &str, seq: u64) -> Answer<'_, ()> {
        let (id, jobs) = (id.to_owned(), Arc::clone(&self.core.jobs));
        self.core.writer.write(
            move |connection| rows::mark_delivered(connection, &id, seq),
            move |marked| marked.inspect(|()| lock(&jobs).pay(seq)),
        )
    }

    fn sweep(&self, retention: Retention) -> Answer<'_, u64> {
        Box::pin(self.core.sweep(retention))
    }
}

impl Sqlite {
    /// The prediction of a number.
    async fn stored(&self, seq: u64) -> Result<Option<Stored>, StoreError> {
        if let Some(record) = self.jobs().record(seq) {
            return Ok(Some(Stored { record: record.clone(), picture: None, owed: false }));
        }
        self.core.readers.read(move |connection| rows::stored(connection, seq)).await
    }
}
