//! A store in memory: everything is gone with the process.
//!
//! Nothing grows without end: beyond [`MAX_ENDED`] ended predictions, unless retention keeps more, or beyond [`MAX_TEXT`] of
//! their records, the oldest are removed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::api::{Answer, Store};
use super::ends;
use super::jobs::{Back, Jobs, Stopping};
use super::record::{Picture, Query, Record, Retention, Stored, Which};
use super::work::{
    About, Accepted, Awaited, Beat, Board, Claim, Claimed, New, News, Node, Outcome, Place, Room, Said, Stopped, Wants,
};
use crate::time::Time;

/// The number of ended predictions that are kept if retention sets none.
const MAX_ENDED: u64 = 10_000;
/// Bytes of text in the records of ended predictions.
const MAX_TEXT: usize = 256 << 20;

/// The engine.
#[derive(Debug)]
pub struct Memory {
    shelf: Arc<Mutex<Shelf>>,
    node: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    jobs: Jobs,
    /// What has ended.
    entries: BTreeMap<u64, Entry>,
    /// Pictures of entries and jobs.
    pictures: HashMap<u64, Vec<Picture>>,
    ids: HashMap<String, u64>,
    files: HashMap<String, u64>,
    keys: HashMap<(String, String), u64>,
    text: usize,
    /// What retention keeps, where that is more than [`MAX_ENDED`].
    max_ended: u64,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    owed: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self::node(Arc::default())
    }
}

impl Memory {
    /// Another node of the same store.
    #[must_use]
    pub fn join(&self) -> Self {
        Self::node(Arc::clone(&self.shelf))
    }

    fn node(shelf: Arc<Mutex<Shelf>>) -> Self {
        let node = lock(&shelf).jobs.register();
        Self { shelf, node: AtomicU64::new(node) }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.shelf)
    }

    fn me(&self) -> Node {
        self.node.load(Ordering::Relaxed)
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    fn has_ended(&self) -> bool {
        self.record.prediction.status.is_terminal()
    }
}

/// About how much memory the texts of a record take.
fn text(record: &Record) -> usize {
    let prediction = &record.prediction;
    let input = &prediction.input;
    let error = prediction.error.as_ref().map_or(0, String::len);
    1024 + prediction.id.len() + input.prompt.len() + input.negative_prompt.len() + prediction.logs.len() + error
}

impl Shelf {
    fn find(&mut self, id: &str, seq: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&seq).filter(|entry| entry.record.prediction.id == id)
    }

    /// Inserts an entry in place of one with the same id.
    fn put(&mut self, record: Record, owed: bool) {
        let (id, seq) = (record.prediction.id.clone(), record.seq);
        if self.ids.get(&id).is_some_and(|&old| old != seq) {
            self.remove(&id);
        } else if let Some(old) = self.entries.remove(&seq) {
            self.text -= text(&old.record);
        }
        self.jobs.seen(seq);
        self.ids.insert(id, seq);
        if let Some(name) = &record.file {
            self.files.insert(name.clone(), seq);
        }
        self.text += text(&record);
        self.entries.insert(seq, Entry { record, owed });
        self.bound();
    }

    /// Stores the end of a job.
    fn end(&mut self, record: Record) {
        let (seq, owed) = (record.seq, record.owes());
        self.put(record, owed);
        self.jobs.end(seq, owed);
    }

    /// Stores the pictures of a prediction, in place of those they name.
    fn keep(&mut self, seq: u64, pictures: Vec<Picture>) {
        let kept = self.pictures.entry(seq).or_default();
        for picture in pictures {
            kept.retain(|old| old.which != picture.which);
            if let Some(name) = &picture.file {
                self.files.insert(name.clone(), seq);
            }
            kept.push(picture);
        }
    }

    fn first(&self, seq: u64) -> Option<&Picture> {
        self.pictures.get(&seq)?.iter().find(|picture| picture.which == Which::FIRST)
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.ids.remove(id).and_then(|seq| self.entries.remove(&seq)) else { return false };
        let seq = entry.record.seq;
        self.text -= text(&entry.record);
        self.pictures.remove(&seq);
        self.files.retain(|_, of| *of != seq);
        self.keys.retain(|_, of| *of != seq);
        self.jobs.pay(seq);
        true
    }

    /// Removes the oldest of what is too much.
    fn bound(&mut self) {
        let max = self.max_ended.max(MAX_ENDED);
        while self.entries.len() as u64 > max || self.text > MAX_TEXT {
            let oldest = self.entries.values().find(|entry| entry.has_ended() && !entry.owed);
            let Some(id) = oldest.map(|entry| entry.record.prediction.id.clone()) else { return };
            self.remove(&id);
        }
    }

    fn stored(&self, seq: u64) -> Option<Stored> {
        if let Some(record) = self.jobs.record(seq) {
            return Some(Stored { record: record.clone(), picture: None, owed: false });
        }
        let entry = self.entries.get(&seq)?;
        let picture = self.first(seq).map(|picture| Arc::clone(&picture.bytes));
        Some(Stored { record: entry.record.clone(), picture, owed: entry.owed })
    }

    fn seq(&self, id: &str) -> Option<u64> {
        self.jobs.find(id).or_else(|| self.ids.get(id).copied())
    }

    fn accept(&mut self, new: New, room: &Room, node: Node) -> Accepted {
        let New { mut record, units, tenant, wire, key, idempotent, inputs } = new;
        let key = key.map(|key| (tenant.clone(), key));
        if let Some(stored) = key.as_ref().and_then(|key| self.stored(*self.keys.get(key)?)) {
            return Accepted::Known(Box::new(stored));
        }
        if let Some(stored) = self.seq(&record.prediction.id).and_then(|seq| self.stored(seq))
            && (idempotent || stored.owed || !stored.record.prediction.status.is_terminal())
        {
            return Accepted::Known(Box::new(stored));
        }
        let entry = match self.jobs.reserve(node, &tenant, units, room) {
            Ok(entry) => entry,
            Err(board) => return Accepted::Full(board),
        };
        let seq = entry.turn.seq;
        self.remove(&record.prediction.id);
        record.seq = seq;
        record.attempts = 0;
        if let Some(key) = key {
            self.keys.insert(key, seq);
        }
        self.keep(seq, inputs);
        self.jobs.admit(entry, record, wire, node);
        Accepted::New(seq)
    }

    fn finish(&mut self, claim: &Claim, mut record: Record, pictures: Vec<Picture>) -> Outcome {
        if !self.jobs.begin_end(claim) {
            return Outcome::Fenced;
        }
        record.seq = claim.seq;
        if self.jobs.is_stopped(claim.seq) {
            record = ends::canceled_instead(record);
        } else {
            self.keep(claim.seq, pictures);
        }
        self.end(record.clone());
        Outcome::Ended(Box::new(record))
    }

    fn sweep(&mut self, retention: Retention) -> u64 {
        self.max_ended = retention.count.unwrap_or(0);
        let now = Time::now();
        let old = |record: &Record| {
            let ended = record.prediction.completed_at;
            retention.age.zip(ended).is_some_and(|(age, at)| now.since(at) > age.as_secs_f64())
        };
        let mut gone = self.remove_all(|entry, _, _| old(&entry.record));
        gone += self.remove_all(|_, count, bytes| {
            retention.count.is_some_and(|most| count > most) || retention.bytes.is_some_and(|most| bytes > most)
        });
        gone
    }

    /// Removes ended entries that owe nothing, by how many are at least as new and how many bytes their pictures have.
    fn remove_all(&mut self, is_old: impl Fn(&Entry, u64, u64) -> bool) -> u64 {
        let (mut count, mut bytes, mut gone) = (0, 0, Vec::new());
        for (seq, entry) in self.entries.iter().rev().filter(|(_, entry)| entry.has_ended()) {
            count += 1;
            bytes +=
                self.pictures.get(seq).into_iter().flatten().map(|picture| picture.bytes.len() as u64).sum::<u64>();
            if !entry.owed && is_old(entry, count, bytes) {
                gone.push(entry.record.prediction.id.clone());
            }
        }
        for id in &gone {
            self.remove(id);
        }
        gone.len() as u64
    }
}

/// An answer that is known at once.
fn ready<T: Send + 'static>(value: T) -> Answer<'static, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Store for Memory {
    fn durable(&self) -> bool {
        false
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn accept(&self, new: New, room: Room) -> Answer<'_, Accepted> {
        ready(self.shelf().accept(new, &room, self.me()))
    }

    fn claim(&self, wants: Wants) -> Answer<'_, Vec<Claimed>> {
        ready(self.shelf().jobs.claim(self.me(), &wants, Time::now()))
    }

    fn finish(&self, claim: &Claim, record: Record, pictures: Vec<Picture>) -> Answer<'_, Outcome> {
        ready(self.shelf().finish(claim, record, pictures))
    }

    fn give_back(&self, claim: &Claim, counted: bool, logs: String) -> Answer<'_, Outcome> {
        let mut shelf = self.shelf();
        ready(match shelf.jobs.give_back(claim, counted, logs, Time::now()) {
            Back::Fenced => Outcome::Fenced,
            Back::Waits(_) => Outcome::Waits,
            Back::Ends(record) => {
                shelf.end((*record).clone());
                Outcome::Ended(record)
            }
        })
    }

    fn stop(&self, id: &str) -> Answer<'_, Stopped> {
        let mut shelf = self.shelf();
        ready(match shelf.jobs.stop(id, Time::now()) {
            Stopping::Unknown if shelf.ids.contains_key(id) => Stopped::TooLate,
            Stopping::Unknown => Stopped::Unknown,
            Stopping::TooLate => Stopped::TooLate,
            Stopping::Asks(seq) => {
                shelf.jobs.ask(seq);
                Stopped::Asked
            }
            Stopping::Ends(record) => {
                shelf.end((*record).clone());
                Stopped::Ended(record)
            }
        })
    }

    fn beat(&self, about: &About, said: Vec<Said>) -> Answer<'_, Beat> {
        let mut shelf = self.shelf();
        if !shelf.jobs.beat(self.me(), about, said) {
            self.node.store(shelf.jobs.register(), Ordering::Relaxed);
            return ready(Beat::Dead);
        }
        let (held, nodes, board) = (shelf.jobs.claims(self.me()), shelf.jobs.nodes(), shelf.jobs.board());
        ready(Beat::Alive { held, nodes, board })
    }

    fn reap(&self, node: Node, beat: u64) -> Answer<'_, bool> {
        let mut shelf = self.shelf();
        let Some((_, doomed)) = shelf.jobs.reap(node, beat, Time::now()) else { return ready(false) };
        for record in doomed {
            ends::announce(&record);
            shelf.end(record);
        }
        ready(true)
    }

    fn adopt(&self) -> Answer<'_, Vec<Record>> {
        let mut shelf = self.shelf();
        let mut adopted = shelf.jobs.adopt(self.me());
        let owed: Vec<u64> = shelf.entries.iter().filter(|(_, entry)| entry.owed).map(|(&seq, _)| seq).collect();
        let owed = shelf.jobs.adopt_owed(self.me(), &owed);
        adopted.extend(owed.iter().filter_map(|seq| Some(shelf.entries.get(seq)?.record.clone())));
        ready(adopted)
    }

    fn news(&self, of: &[Awaited]) -> Answer<'_, Vec<News>> {
        let mut shelf = self.shelf();
        let (mut news, other) = shelf.jobs.news(self.me(), of);
        news.extend(other.into_iter().map(|Awaited { id, seq, .. }| match shelf.find(&id, seq) {
            Some(entry) => News::Ended(Box::new(entry.record.clone())),
            None => News::Gone { seq },
        }));
        ready(news)
    }

    fn place(&self, seq: u64) -> Answer<'_, Option<Place>> {
        ready(self.shelf().jobs.place(seq))
    }

    fn board(&self) -> Board {
        self.shelf().jobs.board()
    }

    fn get(&self, id: &str) -> Answer<'_, Option<Stored>> {
        let shelf = self.shelf();
        ready(shelf.seq(id).and_then(|seq| shelf.stored(seq)))
    }

    fn picture(&self, id: &str, which: Which) -> Answer<'_, Option<Picture>> {
        let shelf = self.shelf();
        let pictures = shelf.seq(id).and_then(|seq| shelf.pictures.get(&seq));
        ready(pictures.into_iter().flatten().find(|picture| picture.which == which).cloned())
    }

    fn add_picture(&self, id: &str, seq: u64, picture: Picture) -> Answer<'_, ()> {
        let mut shelf = self.shelf();
        if shelf.seq(id) == Some(seq) {
            shelf.keep(seq, vec![picture]);
        }
        ready(())
    }

    fn file(&self, name: &str) -> Answer<'_, Option<Arc<[u8]>>> {
        let shelf = self.shelf();
        let Some(seq) = shelf.files.get(name) else { return ready(None) };
        let named = shelf.pictures.get(seq).into_iter().flatten().find(|picture| picture.file.as_deref() == Some(name));
        ready(named.or_else(|| shelf.first(*seq)).map(|picture| Arc::clone(&picture.bytes)))
    }

    fn list(&self, query: Query) -> Answer<'_, Vec<Record>> {
        let shelf = self.shelf();
        let range = query.after.map_or(0, |after| after.saturating_add(1))..query.before.unwrap_or(u64::MAX);
        let wanted = |record: &&Record| {
            query.status.is_none_or(|status| record.prediction.status == status) && range.contains(&record.seq)
        };
        let ended = shelf.entries.range(range.clone()).map(|(_, entry)| &entry.record).filter(wanted);
        let open = shelf.jobs.records().filter(wanted);
        let mut found: Vec<&Record> = if query.after.is_some() {
            ended.take(query.limit).chain(open.take(query.limit)).collect()
        } else {
            ended.rev().take(query.limit).chain(open.rev().take(query.limit)).collect()
        };
        found.sort_by_key(|record| record.seq);
        if query.after.is_some() {
            found.truncate(query.limit);
            found.reverse();
        } else {
            found.reverse();
            found.truncate(query.limit);
        }
        ready(found.into_iter().cloned().collect())
    }

    fn delete(&self, id: &str) -> Answer<'_, bool> {
        let mut shelf = self.shelf();
        let ended = shelf.ids.get(id).and_then(|seq| shelf.entries.get(seq)).is_some_and(Entry::has_ended);
        ready(ended && shelf.remove(id))
    }

    fn mark_delivered(&self, id: &str, seq: u64) -> Answer<'_, ()> {
        let mut shelf = self.shelf();
        if let Some(entry) = shelf.find(id, seq) {
            entry.owed = false;
            shelf.jobs.pay(seq);
        }
        ready(())
    }

    fn sweep(&self, retention: Retention) -> Answer<'_, u64> {
        ready(self.shelf().sweep(retention))
    }
}
