//! A store that fails when it is told to, over one in memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::store::{
    About, Accepted, Adopted, Answer, Awaited, Beat, Board, Claim, Claimed, Found, Memory, New, News, Node, Outcome,
    Picture, Place, Query, Record, Retention, Room, Said, Stopped, Store, StoreError, Stored, Usage, Wants, Which,
};

/// The store. What it fails at has not happened, as the trait says.
#[derive(Default)]
pub(super) struct Flaky {
    inner: Memory,
    /// How many of the next durable writes fail; `u32::MAX` for all.
    failures: AtomicU32,
    /// How many writes were asked for.
    pub(super) writes: AtomicU32,
    /// Whether what is done for dead nodes has no answer any more.
    pub(super) is_stuck: AtomicBool,
    /// How often that was asked for.
    pub(super) asked: AtomicU32,
    /// How often it was looked for what nobody looks after.
    pub(super) adoptions: AtomicU32,
    /// How many are adopted the next times; then all.
    pub(super) parts: Mutex<VecDeque<usize>>,
    /// What has yet to be told of them.
    untold: Mutex<Vec<Record>>,
    /// Whether no picture can be read.
    pub(super) is_unreadable: AtomicBool,
}

impl Flaky {
    /// Over a node that there is.
    pub(super) fn over(inner: Memory) -> Self {
        Self { inner, ..Self::default() }
    }

    pub(super) fn fail(&self, failures: u32) {
        self.failures.store(failures, Ordering::SeqCst);
    }

    /// Another node of the same store.
    pub(super) fn join(&self) -> Memory {
        self.inner.join()
    }

    fn tend<'a, T: Send + 'a>(&'a self, tend: impl FnOnce(&'a Memory) -> Answer<'a, T>) -> Answer<'a, T> {
        if !self.is_stuck.load(Ordering::SeqCst) {
            return tend(&self.inner);
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::pending())
    }

    fn write<'a, T: Send + 'a>(&'a self, write: impl FnOnce(&'a Memory) -> Answer<'a, T>) -> Answer<'a, T> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let left = |left: u32| (left > 0).then(|| if left == u32::MAX { left } else { left - 1 });
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return Box::pin(async { Err(StoreError::Engine("no room left".to_owned())) });
        }
        write(&self.inner)
    }
}

impl Store for Flaky {
    fn durable(&self) -> bool {
        true
    }

    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }

    fn accept(&self, new: New, room: Room) -> Answer<'_, Accepted> {
        self.write(|inner| inner.accept(new, room))
    }

    fn claim(&self, wants: Wants) -> Answer<'_, Vec<Claimed>> {
        self.inner.claim(wants)
    }

    fn finish(&self, claim: &Claim, record: Record, pictures: Vec<Picture>) -> Answer<'_, Outcome> {
        let claim = *claim;
        self.write(move |inner| inner.finish(&claim, record, pictures))
    }

    fn give_back(&self, claim: &Claim, counted: bool, logs: String) -> Answer<'_, Outcome> {
        self.inner.give_back(claim, counted, logs)
    }

    fn stop_one(&self, id: &str, seq: Option<u64>) -> Answer<'_, Stopped> {
        let id = id.to_owned();
        self.write(move |inner| inner.stop_one(&id, seq))
    }

    fn beat(&self, about: &About, said: Vec<Said>) -> Answer<'_, Beat> {
        self.inner.beat(about, said)
    }

    fn reap(&self, node: Node, beat: u64) -> Answer<'_, bool> {
        self.tend(|inner| inner.reap(node, beat))
    }

    fn adopt(&self) -> Answer<'_, Adopted> {
        self.adoptions.fetch_add(1, Ordering::SeqCst);
        let adopted = self.tend(Memory::adopt);
        Box::pin(async move {
            let adopted = adopted.await?.records;
            let mut untold = self.untold.lock().unwrap();
            untold.extend(adopted);
            let part = self.parts.lock().unwrap().pop_front().unwrap_or(usize::MAX).min(untold.len());
            let records = untold.drain(..part).collect();
            Ok(Adopted { records, more: !untold.is_empty() })
        })
    }

    fn news(&self, of: &[Awaited]) -> Answer<'_, Vec<News>> {
        self.inner.news(of)
    }

    fn place(&self, seq: u64) -> Answer<'_, Option<Place>> {
        self.inner.place(seq)
    }

    fn board(&self) -> Board {
        self.inner.board()
    }

    fn admits(&self, room: &Room) -> bool {
        self.inner.admits(room)
    }

    fn get(&self, id: &str) -> Answer<'_, Option<Stored>> {
        self.inner.get(id)
    }

    fn record(&self, id: &str) -> Answer<'_, Option<Record>> {
        self.inner.record(id)
    }

    fn of_key(&self, tenant: &str, key: &str) -> Answer<'_, Option<Stored>> {
        self.inner.of_key(tenant, key)
    }

    fn picture(&self, id: &str, which: Which) -> Answer<'_, Option<Picture>> {
        if self.is_unreadable.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Engine("the disk does not answer".to_owned())) });
        }
        self.inner.picture(id, which)
    }

    fn add_picture(&self, id: &str, seq: u64, picture: Picture) -> Answer<'_, ()> {
        self.inner.add_picture(id, seq, picture)
    }

    fn file(&self, name: &str) -> Answer<'_, Option<Arc<[u8]>>> {
        self.inner.file(name)
    }

    fn search(&self, query: Query<'_>) -> Answer<'_, Found> {
        self.inner.search(query)
    }

    fn usage(&self) -> Answer<'_, Vec<Usage>> {
        self.inner.usage()
    }

    fn delete(&self, id: &str) -> Answer<'_, bool> {
        let id = id.to_owned();
        self.write(move |inner| inner.delete(&id))
    }

    fn mark_delivered(&self, id: &str, seq: u64) -> Answer<'_, ()> {
        self.inner.mark_delivered(id, seq)
    }

    fn sweep(&self, retention: Retention) -> Answer<'_, u64> {
        self.inner.sweep(retention)
    }
}
