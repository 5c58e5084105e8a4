//! The tests that every engine passes.

use serde_json::json;

use super::{Memory, Query, Record, Retention, Sqlite, Store};
use crate::time::Time;
use crate::wire::{Status, tests::accepted};

fn record(id: &str, seq: u64) -> Record {
    let prediction = accepted(id, &json!({"prompt": id}));
    Record { prediction, seq, attempts: 0, webhook: None, output_file_prefix: None, file: None, deadline: None }
}

fn ended(id: &str, seq: u64) -> Record {
    let mut record = record(id, seq);
    record.prediction.status = Status::Succeeded;
    record.prediction.completed_at = Some(Time::now());
    record
}

fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.prediction.id.as_str()).collect()
}

async fn suite(store: &dyn Store) {
    for (seq, id) in [(1, "a"), (2, "b/ü"), (3, "")] {
        store.accept(record(id, seq)).await.unwrap();
    }
    assert_eq!(ids(&store.unfinished().await.unwrap()), ["a", "b/ü", ""]);
    assert_eq!(store.get("b/ü").await.unwrap().unwrap().record.prediction.input.prompt, "b/ü");
    assert!(store.get("c").await.unwrap().is_none());

    let now = Time::from_micros(Time::now().micros());
    store.note("a", 1, Some(now), 1).await.unwrap();
    let a = store.get("a").await.unwrap().unwrap().record;
    assert_eq!((a.attempts, a.prediction.status, a.prediction.started_at), (1, Status::Processing, Some(now)));
    store.note("a", 1, None, 0).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().record.prediction.status, Status::Starting);

    assert!(!store.delete("a").await.unwrap(), "what has not ended stays");
    store.finish(ended("a", 1), Some(b"png"[..].into()), true).await.unwrap();
    store.note("a", 1, Some(now), 2).await.unwrap();
    let a = store.get("a").await.unwrap().unwrap();
    assert_eq!((a.record.prediction.status, a.picture.as_deref()), (Status::Succeeded, Some(&b"png"[..])));
    assert_eq!(ids(&store.unfinished().await.unwrap()), ["b/ü", ""]);

    assert_eq!(store.owed().await.unwrap().len(), 1);
    store.sweep(Retention { count: Some(0), ..Retention::default() }).await.unwrap();
    assert!(store.get("a").await.unwrap().is_some(), "what owes a webhook stays");
    store.settle("a", 1).await.unwrap();
    assert!(store.owed().await.unwrap().is_empty());

    store.accept(record("a", 4)).await.unwrap();
    let again = store.get("a").await.unwrap().unwrap();
    assert_eq!((again.record.seq, again.record.prediction.status), (4, Status::Starting));
    assert!(again.picture.is_none(), "a record that replaces another has none of its picture");
    store.note("a", 1, Some(now), 9).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().record.attempts, 0, "notes for the old one are void");

    let named = Record { file: Some("named.png".to_owned()), ..ended("f", 5) };
    store.finish(named, Some(b"named"[..].into()), false).await.unwrap();
    assert_eq!(store.file("named.png").await.unwrap().as_deref(), Some(&b"named"[..]));
    assert!(store.file("f").await.unwrap().is_none() && store.file("").await.unwrap().is_none());
    assert!(store.delete("f").await.unwrap());
    assert!(store.file("named.png").await.unwrap().is_none(), "it goes with its prediction");

    for seq in 5..9 {
        store.finish(ended(&format!("e{seq}"), seq), Some(vec![0; 10].into()), false).await.unwrap();
    }
    let list = |query| async move { store.list(query).await.unwrap() };
    let page = Query { limit: 3, ..Query::default() };
    assert_eq!(ids(&list(page).await), ["e8", "e7", "e6"]);
    assert_eq!(ids(&list(Query { before: Some(6), ..page }).await), ["e5", "a", ""]);
    assert_eq!(ids(&list(Query { after: Some(3), ..page }).await), ["e6", "e5", "a"]);
    assert_eq!(ids(&list(Query { status: Some(Status::Starting), ..page }).await), ["a", "", "b/ü"]);
    assert_eq!(store.last_seq().await.unwrap(), 8);

    assert_eq!(store.sweep(Retention { bytes: Some(35), ..Retention::default() }).await.unwrap(), 1);
    assert!(store.get("e5").await.unwrap().is_none() && store.get("e6").await.unwrap().is_some());
    assert_eq!(store.sweep(Retention { count: Some(2), ..Retention::default() }).await.unwrap(), 1);
    assert!(store.delete("e8").await.unwrap() && !store.delete("e8").await.unwrap());
    let old = Retention { age: Some(std::time::Duration::ZERO), ..Retention::default() };
    assert_eq!(store.sweep(old).await.unwrap(), 1);
    assert_eq!(store.unfinished().await.unwrap().len(), 3);
}

#[tokio::test]
async fn memory() {
    suite(&Memory::default()).await;
}

#[tokio::test]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    suite(&Sqlite::open(dir.path()).unwrap()).await;
}

#[tokio::test]
async fn sqlite_gives_back_the_room_of_what_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    for seq in 1..20 {
        store.finish(ended(&seq.to_string(), seq), Some(vec![7; 1 << 20].into()), false).await.unwrap();
    }
    store.sweep(Retention { count: Some(1), ..Retention::default() }).await.unwrap();
    drop(store);
    let size = dir.path().join("predictions.sqlite").metadata().unwrap().len();
    assert!(size < 4 << 20, "{size} bytes are left");
}

#[tokio::test]
async fn sqlite_keeps_what_it_answered_for_and_one_server_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    store.accept(record("a", 1)).await.unwrap();
    let second = Sqlite::open(dir.path()).err().unwrap().to_string();
    assert!(second.contains("another server uses"), "{second}");
    drop(store);
    let store = Sqlite::open(dir.path()).unwrap();
    assert_eq!(ids(&store.unfinished().await.unwrap()), ["a"]);
}
