//! What a memory store holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::store::ends;
use crate::store::jobs::Jobs;
use crate::store::record::{Picture, Record, Retention, Stored, Which};
use crate::store::usage::Usage;
use crate::store::work::{Accepted, Claim, New, Node, Outcome, Room};
use crate::time::Time;

/// The number of ended predictions that are kept if retention sets none.
pub(super) const MAX_ENDED: u64 = 10_000;
/// Bytes of text in the records of ended predictions.
pub(super) const MAX_TEXT: usize = if cfg!(test) { 32 << 20 } else { 256 << 20 };

/// The predictions and pictures of a store.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) jobs: Jobs,
    /// What has ended.
    pub(super) entries: BTreeMap<u64, Entry>,
    /// Pictures of entries and jobs.
    pub(super) pictures: HashMap<u64, Vec<Picture>>,
    pub(super) ids: HashMap<String, u64>,
    pub(super) files: HashMap<String, u64>,
    /// Numbers by tenant and `Idempotency-Key`, and the reverse.
    keys: HashMap<(String, String), u64>,
    keys_of: HashMap<u64, (String, String)>,
    pub(super) text: usize,
    /// By name.
    pub(super) usage: BTreeMap<String, Usage>,
    /// What retention keeps, where that is more than [`MAX_ENDED`].
    pub(super) max_ended: u64,
}

/// A prediction that has ended.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) owed: bool,
}

impl Entry {
    pub(super) fn has_ended(&self) -> bool {
        self.record.prediction.status.is_terminal()
    }
}

/// About how much memory the texts of a record take.
fn text(record: &Record) -> usize {
    let prediction = &record.prediction;
    let input = &prediction.input;
    let error = prediction.error.as_ref().map_or(0, String::len);
    let prompts: usize = input.prompts.iter().map(String::len).sum();
    1024 + prediction.id.len()
        + input.prompt.len()
        + input.negative_prompt.len()
        + prompts
        + prediction.logs.len()
        + error
}

impl Shelf {
    pub(super) fn find(&mut self, id: &str, seq: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&seq).filter(|entry| entry.record.prediction.id == id)
    }

    /// Inserts an entry in place of one with the same id.
    pub(super) fn put(&mut self, record: Record, owed: bool) {
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
    pub(super) fn end(&mut self, record: Record) {
        let (seq, owed) = (record.seq, record.owes());
        if let Some(name) = self.jobs.tenant(seq) {
            let used = Usage::of(name, &record);
            self.usage
                .entry(used.name.clone())
                .or_insert_with(|| Usage { name: used.name.clone(), ..Usage::default() })
                .add(&used);
        }
        self.put(record, owed);
        self.jobs.end(seq, owed);
    }

    /// Stores the pictures of a prediction, in place of those they name.
    pub(super) fn keep(&mut self, seq: u64, pictures: Vec<Picture>) {
        let kept = self.pictures.entry(seq).or_default();
        for picture in pictures {
            kept.retain(|old| old.which != picture.which);
            if let Some(name) = &picture.file {
                self.files.insert(name.clone(), seq);
            }
            kept.push(picture);
        }
    }

    pub(super) fn first(&self, seq: u64) -> Option<&Picture> {
        self.pictures.get(&seq)?.iter().find(|picture| picture.which == Which::FIRST)
    }

    pub(super) fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.ids.remove(id).and_then(|seq| self.entries.remove(&seq)) else { return false };
        let seq = entry.record.seq;
        self.text -= text(&entry.record);
        let pictures = self.pictures.remove(&seq).unwrap_or_default();
        for name in pictures.into_iter().filter_map(|picture| picture.file).chain(entry.record.file) {
            self.files.remove(&name);
        }
        if let Some(key) = self.keys_of.remove(&seq) {
            self.keys.remove(&key);
        }
        self.jobs.pay(seq);
        true
    }

    /// Removes the oldest of what is too much.
    pub(super) fn bound(&mut self) {
        let max = self.max_ended.max(MAX_ENDED);
        while self.entries.len() as u64 > max || self.text > MAX_TEXT {
            let oldest = self.entries.values().find(|entry| entry.has_ended() && !entry.owed);
            let Some(id) = oldest.map(|entry| entry.record.prediction.id.clone()) else { return };
            self.remove(&id);
        }
    }

    pub(super) fn stored(&self, seq: u64) -> Option<Stored> {
        if let Some(record) = self.jobs.record(seq) {
            return Some(Stored { record: record.clone(), picture: None, more: Vec::new(), owed: false });
        }
        let entry = self.entries.get(&seq)?;
        let picture = self.first(seq).map(|picture| Arc::clone(&picture.bytes));
        let mut more: Vec<_> =
            self.pictures.get(&seq).into_iter().flatten().filter(|picture| picture.which.is_more()).collect();
        more.sort_by_key(|picture| picture.which.n);
        let more = more.into_iter().map(|picture| Arc::clone(&picture.bytes)).collect();
        Some(Stored { record: entry.record.clone(), picture, more, owed: entry.owed })
    }

    pub(super) fn record(&self, seq: u64) -> Option<&Record> {
        self.jobs.record(seq).or_else(|| self.entries.get(&seq).map(|entry| &entry.record))
    }

    pub(super) fn seq(&self, id: &str) -> Option<u64> {
        self.jobs.find(id).or_else(|| self.ids.get(id).copied())
    }

    /// The prediction of a tenant's key.
    pub(super) fn of_key(&self, key: &(String, String)) -> Option<Stored> {
        self.stored(*self.keys.get(key)?)
    }

    pub(super) fn accept(&mut self, new: New, room: &Room, node: Node) -> Accepted {
        let New { mut record, units, tenant, wire, key, idempotent, inputs } = new;
        let key = key.map(|key| (tenant.clone(), key));
        if let Some(stored) = key.as_ref().and_then(|key| self.of_key(key)) {
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
            self.keys_of.insert(seq, key.clone());
            self.keys.insert(key, seq);
        }
        self.keep(seq, inputs);
        self.jobs.admit(entry, record, wire, node);
        Accepted::New(seq)
    }

    pub(super) fn finish(&mut self, claim: &Claim, mut record: Record, pictures: Vec<Picture>) -> Outcome {
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

    pub(super) fn sweep(&mut self, retention: Retention) -> u64 {
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
    pub(super) fn remove_all(&mut self, is_old: impl Fn(&Entry, u64, u64) -> bool) -> u64 {
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
