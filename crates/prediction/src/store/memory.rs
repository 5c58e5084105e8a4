//! A store in memory: everything is gone with the process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Answer, Query, Record, Retention, Store, Stored};
use crate::time::Time;
use crate::wire::Status;

/// The engine.
#[derive(Debug, Default)]
pub struct Memory {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: BTreeMap<u64, Entry>,
    seqs: HashMap<String, u64>,
    files: HashMap<String, u64>,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    stored: Stored,
    owed: bool,
}

impl Memory {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn find(&mut self, id: &str, seq: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&seq).filter(|entry| entry.stored.record.prediction.id == id)
    }

    fn put(&mut self, record: Record, picture: Option<Arc<[u8]>>, owed: bool) {
        self.remove(&record.prediction.id.clone());
        self.last = self.last.max(record.seq);
        self.seqs.insert(record.prediction.id.clone(), record.seq);
        if let Some(name) = &record.file {
            self.files.insert(name.clone(), record.seq);
        }
        self.entries.insert(record.seq, Entry { stored: Stored { record, picture }, owed });
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.seqs.remove(id).and_then(|seq| self.entries.remove(&seq)) else { return false };
        if let Some(name) = &entry.stored.record.file {
            self.files.remove(name);
        }
        true
    }
}

impl Entry {
    fn status(&self) -> Status {
        self.stored.record.prediction.status
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

    fn accept(&self, record: Record) -> Answer<'_, ()> {
        self.shelf().put(record, None, false);
        ready(())
    }

    fn note(&self, id: &str, seq: u64, started_at: Option<Time>, attempts: u32) -> Answer<'_, ()> {
        if let Some(entry) = self.shelf().find(id, seq).filter(|entry| !entry.status().is_terminal()) {
            let record = &mut entry.stored.record;
            record.attempts = attempts;
            record.prediction.started_at = started_at;
            record.prediction.status = if started_at.is_some() { Status::Processing } else { Status::Starting };
        }
        ready(())
    }

    fn finish(&self, record: Record, picture: Option<Arc<[u8]>>, owed: bool) -> Answer<'_, ()> {
        self.shelf().put(record, picture, owed);
        ready(())
    }

    fn get(&self, id: &str) -> Answer<'_, Option<Stored>> {
        let shelf = self.shelf();
        let stored = shelf.seqs.get(id).and_then(|seq| shelf.entries.get(seq)).map(|entry| entry.stored.clone());
        ready(stored)
    }

    fn file(&self, name: &str) -> Answer<'_, Option<Arc<[u8]>>> {
        let shelf = self.shelf();
        let entry = shelf.files.get(name).and_then(|seq| shelf.entries.get(seq));
        ready(entry.and_then(|entry| entry.stored.picture.clone()))
    }

    fn list(&self, query: Query) -> Answer<'_, Vec<Record>> {
        let shelf = self.shelf();
        let wanted = |entry: &&Entry| query.status.is_none_or(|status| entry.status() == status);
        let range = query.after.map_or(0, |after| after + 1)..query.before.unwrap_or(u64::MAX);
        let entries = shelf.entries.range(range).map(|(_, entry)| entry).filter(wanted);
        let mut records: Vec<Record> = if query.after.is_some() {
            entries.take(query.limit).map(|entry| entry.stored.record.clone()).collect()
        } else {
            entries.rev().take(query.limit).map(|entry| entry.stored.record.clone()).collect()
        };
        if query.after.is_some() {
            records.reverse();
        }
        ready(records)
    }

    fn delete(&self, id: &str) -> Answer<'_, bool> {
        let mut shelf = self.shelf();
        let ended =
            shelf.seqs.get(id).and_then(|seq| shelf.entries.get(seq)).is_some_and(|entry| entry.status().is_terminal());
        ready(ended && shelf.remove(id))
    }

    fn unfinished(&self) -> Answer<'_, Vec<Record>> {
        let shelf = self.shelf();
        let open = shelf.entries.values().filter(|entry| !entry.status().is_terminal());
        ready(open.map(|entry| entry.stored.record.clone()).collect())
    }

    fn last_seq(&self) -> Answer<'_, u64> {
        ready(self.shelf().last)
    }

    fn owed(&self) -> Answer<'_, Vec<Record>> {
        let shelf = self.shelf();
        ready(shelf.entries.values().filter(|entry| entry.owed).map(|entry| entry.stored.record.clone()).collect())
    }

    fn settle(&self, id: &str, seq: u64) -> Answer<'_, ()> {
        if let Some(entry) = self.shelf().find(id, seq) {
            entry.owed = false;
        }
        ready(())
    }

    fn sweep(&self, retention: Retention) -> Answer<'_, u64> {
        let mut shelf = self.shelf();
        let (mut count, mut bytes, now) = (0, 0, Time::now());
        let mut gone = Vec::new();
        for entry in shelf.entries.values().rev().filter(|entry| entry.status().is_terminal()) {
            let prediction = &entry.stored.record.prediction;
            count += 1;
            bytes += entry.stored.picture.as_ref().map_or(0, |picture| picture.len() as u64);
            let old =
                |age: std::time::Duration| prediction.completed_at.is_some_and(|at| now.since(at) > age.as_secs_f64());
            if !entry.owed
                && (retention.age.is_some_and(old)
                    || retention.count.is_some_and(|most| count > most)
                    || retention.bytes.is_some_and(|most| bytes > most))
            {
                gone.push(prediction.id.clone());
            }
        }
        for id in &gone {
            shelf.remove(id);
        }
        ready(gone.len() as u64)
    }
}
