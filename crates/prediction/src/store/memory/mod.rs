//! A store in memory: everything is gone with the process.
//!
//! Nothing grows without end: beyond [`shelf::MAX_ENDED`] ended predictions, unless retention keeps more, or beyond
//! [`shelf::MAX_TEXT`] of their records, the oldest are removed.

mod shelf;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::mutex::lock;
use crate::store::api::{Answer, Store};
use crate::store::ends;
use crate::store::jobs::{Back, Stopping};
use crate::store::record::{Found, MAX_LOOKED, Picture, Query, Record, Retention, Search, Stored, Which};
use crate::store::usage::Usage;
use crate::store::work::{
    About, Accepted, Adopted, Awaited, Beat, Board, Claim, Claimed, NOBODY, New, News, Node, Outcome, Place, Room,
    Said, Stopped, Wants,
};
use crate::time::Time;
use shelf::{Entry, Shelf};

/// The engine.
#[derive(Debug)]
pub struct Memory {
    shelf: Arc<Mutex<Shelf>>,
    node: AtomicU64,
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

    fn stop_one(&self, id: &str, seq: Option<u64>) -> Answer<'_, Stopped> {
        let mut shelf = self.shelf();
        ready(match shelf.jobs.stop(id, seq, Time::now()) {
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
        if self.me() == NOBODY {
            self.node.store(shelf.jobs.register(), Ordering::Relaxed);
        }
        if !shelf.jobs.beat(self.me(), about, said) {
            self.node.store(NOBODY, Ordering::Relaxed);
            return ready(Beat::Dead);
        }
        let (held, nodes, board) = (shelf.jobs.claims(self.me()), shelf.jobs.nodes(), shelf.jobs.board());
        ready(Beat::Alive { node: self.me(), held, nodes, board, last: None })
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

    fn adopt(&self) -> Answer<'_, Adopted> {
        let mut shelf = self.shelf();
        let mut records = shelf.jobs.adopt(self.me());
        let owed: Vec<u64> = shelf.entries.iter().filter(|(_, entry)| entry.owed).map(|(&seq, _)| seq).collect();
        let owed = shelf.jobs.adopt_owed(self.me(), &owed);
        records.extend(owed.iter().filter_map(|seq| Some(shelf.entries.get(seq)?.record.clone())));
        ready(Adopted { records, more: false })
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

    fn admits(&self, room: &Room) -> bool {
        self.shelf().jobs.admits(self.me(), room)
    }

    fn get(&self, id: &str) -> Answer<'_, Option<Stored>> {
        let shelf = self.shelf();
        ready(shelf.seq(id).and_then(|seq| shelf.stored(seq)))
    }

    fn record(&self, id: &str) -> Answer<'_, Option<Record>> {
        let shelf = self.shelf();
        ready(shelf.seq(id).and_then(|seq| shelf.record(seq)).cloned())
    }

    fn of_key(&self, tenant: &str, key: &str) -> Answer<'_, Option<Stored>> {
        ready(self.shelf().of_key(&(tenant.to_owned(), key.to_owned())))
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

    fn search(&self, query: Query<'_>) -> Answer<'_, Found> {
        let shelf = self.shelf();
        let range = query.after.map_or(0, |after| after.saturating_add(1))..query.before.unwrap_or(u64::MAX);
        let wanted = |record: &&Record| {
            query.status.is_none_or(|status| record.prediction.status == status) && range.contains(&record.seq)
        };
        let ended = shelf.entries.range(range.clone()).map(|(_, entry)| &entry.record).filter(wanted);
        let open = shelf.jobs.records().filter(wanted);
        // One more than a search looks at says that there is more.
        let most = if query.text.is_some() { MAX_LOOKED + 1 } else { query.limit };
        let mut found: Vec<&Record> = if query.after.is_some() {
            ended.take(most).chain(open.take(most)).collect()
        } else {
            ended.rev().take(most).chain(open.rev().take(most)).collect()
        };
        found.sort_by_key(|record| record.seq);
        if query.after.is_none() {
            found.reverse();
        }
        found.truncate(most);
        let mut looked = None;
        if let Some(text) = query.text {
            let (mut search, mut last) = (Search::new(text), None);
            for record in std::mem::take(&mut found) {
                if found.len() == query.limit {
                    break;
                }
                if !search.goes_on() {
                    looked = last;
                    break;
                }
                last = Some(record.seq);
                let prompt = &record.prediction.input.prompt;
                if search.finds(prompt, prompt.len()) {
                    found.push(record);
                }
            }
        }
        if query.after.is_some() {
            found.reverse();
        }
        ready(Found { records: found.into_iter().cloned().collect(), looked })
    }

    fn usage(&self) -> Answer<'_, Vec<Usage>> {
        ready(self.shelf().usage.values().cloned().collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::{accept, ids, record};
    use shelf::{MAX_ENDED, MAX_TEXT};

    async fn kept(store: &Memory) -> Vec<Record> {
        store.list(Query { limit: usize::MAX, ..Query::default() }).await.unwrap()
    }

    #[tokio::test]
    async fn the_number_of_ended_predictions_is_limited() {
        let store = Memory::default();
        for n in 0..MAX_ENDED + 20 {
            accept(&store, record(&n.to_string())).await;
            store.stop(&n.to_string()).await.unwrap();
        }
        let left = kept(&store).await;
        assert_eq!((left.len() as u64, ids(&left[..1])), (MAX_ENDED, vec![&*(MAX_ENDED + 19).to_string()]));
        // More than that if retention says so.
        store.sweep(Retention { count: Some(MAX_ENDED + 5), ..Retention::default() }).await.unwrap();
        for n in 0..20 {
            accept(&store, record(&format!("more {n}"))).await;
            store.stop(&format!("more {n}")).await.unwrap();
        }
        assert_eq!(kept(&store).await.len() as u64, MAX_ENDED + 5);
    }

    #[tokio::test]
    async fn the_text_of_ended_predictions_is_limited() {
        let store = Memory::default();
        for n in 0..40 {
            let mut record = record(&n.to_string());
            record.prediction.input.prompt = "x".repeat(1 << 20);
            accept(&store, record).await;
            store.stop(&n.to_string()).await.unwrap();
        }
        assert_eq!(kept(&store).await.len(), (MAX_TEXT >> 20) - 1);
        assert!(store.get("0").await.unwrap().is_none() && store.get("39").await.unwrap().is_some());
    }
}
