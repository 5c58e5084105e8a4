//! The methods of the trait.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Sqlite;
use super::counted;
use super::rows;
use super::search;
use super::shared::Undo;
use crate::mutex::lock;
use crate::store::api::{Answer, Store};
use crate::store::error::StoreError;
use crate::store::jobs::{Back, Stopping};
use crate::store::queue::Entry;
use crate::store::record::{Found, Picture, Query, Record, Retention, Stored, Which};
use crate::store::usage::Usage;
use crate::store::work::{
    About, Accepted, Adopted, Awaited, Beat, Board, Claim, Claimed, NOBODY, New, News, Node, Outcome, Place, Room,
    Said, Stopped, Wants,
};
use crate::time::Time;

/// An answer that is known at once.
fn ready<T: Send + 'static>(value: T) -> Answer<'static, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Store for Sqlite {
    fn durable(&self) -> bool {
        true
    }

    fn trouble(&self) -> Option<String> {
        self.shared.disk.trouble()
    }

    fn accept(&self, new: New, room: Room) -> Answer<'_, Accepted> {
        enum Plan {
            New(Box<Record>, Entry, Undo),
            Known(u64),
            Full(Board),
        }
        let New { mut record, units, tenant, wire, key, idempotent, inputs } = new;
        let (jobs, done, disk, node) =
            (Arc::clone(&self.shared.jobs), Arc::clone(&self.shared.jobs), Arc::clone(&self.shared.disk), self.me());
        let planned = self.shared.writer.write(
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
            drop(self.shared.writer.write(
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
        self.shared.end(record, pictures, Outcome::Ended)
    }

    fn give_back(&self, claim: &Claim, counted: bool, logs: String) -> Answer<'_, Outcome> {
        let back = self.jobs().give_back(claim, counted, logs, Time::now());
        match back {
            Back::Fenced => ready(Outcome::Fenced),
            Back::Ends(record) => self.shared.end(*record, Vec::new(), Outcome::Ended),
            Back::Waits(record) => self
                .shared
                .writer
                .write(move |connection| rows::back(connection, &record), |noted| noted.map(|()| Outcome::Waits)),
        }
    }

    fn stop_one(&self, id: &str, seq: Option<u64>) -> Answer<'_, Stopped> {
        let stopping = self.jobs().stop(id, seq, Time::now());
        match stopping {
            Stopping::TooLate => ready(Stopped::TooLate),
            Stopping::Ends(record) => self.shared.end(*record, Vec::new(), Stopped::Ended),
            Stopping::Asks(seq) => {
                let jobs = Arc::clone(&self.shared.jobs);
                self.shared.writer.write(
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
                let known = self.shared.readers.read(move |connection| rows::known(connection, &id));
                Box::pin(async move { Ok(if known.await?.is_some() { Stopped::TooLate } else { Stopped::Unknown }) })
            }
        }
    }

    fn beat(&self, about: &About, said: Vec<Said>) -> Answer<'_, Beat> {
        drop(self.shared.end_doomed());
        let mut jobs = self.jobs();
        if self.me() == NOBODY {
            self.node.store(jobs.register(), Ordering::Relaxed);
        }
        if !jobs.beat(self.me(), about, said) {
            self.node.store(NOBODY, Ordering::Relaxed);
            return ready(Beat::Dead);
        }
        let (held, nodes, board) = (jobs.claims(self.me()), jobs.nodes(), jobs.board());
        ready(Beat::Alive { node: self.me(), held, nodes, board, last: None })
    }

    fn reap(&self, node: Node, beat: u64) -> Answer<'_, bool> {
        let Some((back, doomed)) = self.jobs().reap(node, beat, Time::now()) else { return ready(false) };
        let noted = self.shared.writer.write(
            move |connection| back.iter().try_for_each(|record| rows::back(connection, record)),
            |noted| {
                noted
                    .inspect_err(|error| tracing::error!(%error, "what a dead node held could not be noted as waiting"))
            },
        );
        lock(&self.shared.doomed).extend(doomed);
        let ends = self.shared.end_doomed();
        Box::pin(async move {
            // Both are as they should be in memory, and on the disk at the latest when the store is opened again.
            _ = noted.await;
            for end in ends {
                _ = end.await;
            }
            Ok(true)
        })
    }

    fn adopt(&self) -> Answer<'_, Adopted> {
        // Behind the ends that opening or reaping has made.
        let ended = self.shared.writer.write(|_| Ok(()), |ended| ended);
        Box::pin(async move {
            _ = ended.await;
            let unreadable = Arc::clone(&self.shared.unreadable);
            let mut owed = self.shared.readers.read(move |connection| rows::owed(connection, &unreadable)).await?;
            let mut jobs = self.jobs();
            let seqs: Vec<u64> = owed.iter().map(|record| record.seq).collect();
            let mine = jobs.adopt_owed(self.me(), &seqs);
            owed.retain(|record| mine.binary_search(&record.seq).is_ok());
            let mut records = jobs.adopt(self.me());
            records.append(&mut owed);
            Ok(Adopted { records, more: false })
        })
    }

    fn news(&self, of: &[Awaited]) -> Answer<'_, Vec<News>> {
        let (mut news, other) = self.jobs().news(self.me(), of);
        if other.is_empty() {
            return ready(news);
        }
        let read = self.shared.readers.read(move |connection| {
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

    fn admits(&self, room: &Room) -> bool {
        self.jobs().admits(self.me(), room)
    }

    fn get(&self, id: &str) -> Answer<'_, Option<Stored>> {
        let jobs = self.jobs();
        if let Some(record) = jobs.find(id).and_then(|seq| jobs.record(seq)) {
            return ready(Some(Stored { record: record.clone(), picture: None, more: Vec::new(), owed: false }));
        }
        let id = id.to_owned();
        self.shared.readers.read(move |connection| {
            let Some(seq) = rows::seq(connection, &id)? else { return Ok(None) };
            rows::stored(connection, seq)
        })
    }

    fn record(&self, id: &str) -> Answer<'_, Option<Record>> {
        let jobs = self.jobs();
        if let Some(record) = jobs.find(id).and_then(|seq| jobs.record(seq)) {
            return ready(Some(record.clone()));
        }
        let id = id.to_owned();
        self.shared.readers.read(move |connection| {
            let Some(seq) = rows::seq(connection, &id)? else { return Ok(None) };
            rows::read(connection, seq)
        })
    }

    fn of_key(&self, tenant: &str, key: &str) -> Answer<'_, Option<Stored>> {
        let (tenant, key) = (tenant.to_owned(), key.to_owned());
        Box::pin(async move {
            let found = self.shared.readers.read(move |connection| rows::seq_of_key(connection, &tenant, &key)).await?;
            match found {
                Some(seq) => self.stored(seq).await,
                None => Ok(None),
            }
        })
    }

    fn picture(&self, id: &str, which: Which) -> Answer<'_, Option<Picture>> {
        let id = id.to_owned();
        self.shared.readers.read(move |connection| {
            let Some(seq) = rows::seq(connection, &id)? else { return Ok(None) };
            rows::picture(connection, seq, &which)
        })
    }

    fn add_picture(&self, id: &str, seq: u64, picture: Picture) -> Answer<'_, ()> {
        let id = id.to_owned();
        self.shared.writer.write(
            move |connection| match rows::seq(connection, &id)? {
                Some(found) if found == seq => rows::add_pictures(connection, seq, &[picture]),
                _ => Ok(()),
            },
            |added| added,
        )
    }

    fn file(&self, name: &str) -> Answer<'_, Option<Arc<[u8]>>> {
        let name = name.to_owned();
        self.shared.readers.read(move |connection| rows::file(connection, &name))
    }

    fn search(&self, query: Query<'_>) -> Answer<'_, Found> {
        let unreadable = Arc::clone(&self.shared.unreadable);
        let Query { before, after, status, text, limit } = query;
        let text = text.map(str::to_owned);
        let read = self.shared.readers.read(move |connection| {
            let query = Query { before, after, status, text: text.as_deref(), limit };
            search::search(connection, query, &unreadable)
        });
        Box::pin(async move {
            let mut found = read.await?;
            let jobs = self.jobs();
            for record in &mut found.records {
                if let Some(now) = jobs.record(record.seq) {
                    record.clone_from(now);
                }
            }
            found.records.retain(|record| status.is_none_or(|status| record.prediction.status == status));
            Ok(found)
        })
    }

    fn usage(&self) -> Answer<'_, Vec<Usage>> {
        self.shared.readers.read(counted::read)
    }

    fn delete(&self, id: &str) -> Answer<'_, bool> {
        let id = id.to_owned();
        Box::pin(async move {
            let removed = self.shared.remove(move |connection| rows::delete(connection, &id)).await?;
            if let Some(seq) = removed {
                self.jobs().pay(seq);
                if self.shared.disk.is_low() {
                    // The disk is full: what was removed is wanted back at once.
                    if let Err(error) = self.shared.shrink().await {
                        tracing::warn!(%error, "the room of a removed prediction could not be returned to the disk");
                    }
                }
            }
            Ok(removed.is_some())
        })
    }

    fn mark_delivered(&self, id: &str, seq: u64) -> Answer<'_, ()> {
        let (id, jobs) = (id.to_owned(), Arc::clone(&self.shared.jobs));
        self.shared.writer.write(
            move |connection| rows::mark_delivered(connection, &id, seq),
            move |marked| marked.inspect(|()| lock(&jobs).pay(seq)),
        )
    }

    fn sweep(&self, retention: Retention) -> Answer<'_, u64> {
        Box::pin(self.shared.sweep(retention))
    }
}

impl Sqlite {
    /// The prediction of a number.
    async fn stored(&self, seq: u64) -> Result<Option<Stored>, StoreError> {
        if let Some(record) = self.jobs().record(seq) {
            return Ok(Some(Stored { record: record.clone(), picture: None, more: Vec::new(), owed: false }));
        }
        self.shared.readers.read(move |connection| rows::stored(connection, seq)).await
    }
}
