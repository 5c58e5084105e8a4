//! What only the SQLite engine promises.

mod disk;
mod sweeping;

use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use super::*;
use crate::store::suite::{accept, claim, end, ids, picture, record, status, succeeded, with_webhook};
use crate::store::{Accepted, New, Outcome, Picture, Query, Retention, Room, Stopped, Store as _, Wants, Which};
use crate::time::Time;
use crate::wire::Status;

fn database(dir: &Path) -> Connection {
    Connection::open(dir.join("predictions.sqlite")).unwrap()
}

/// The schema of the version before this one, as it was made then.
const SCHEMA_2: &str = "
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    CREATE TABLE predictions (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, attempts INTEGER NOT NULL, started_at INTEGER,
        completed_at INTEGER, owed INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX predictions_by_status ON predictions (status, seq);
    CREATE INDEX predictions_owed ON predictions (seq) WHERE owed;
    CREATE TABLE pictures (seq INTEGER PRIMARY KEY, png BLOB NOT NULL) STRICT;
    ALTER TABLE predictions ADD COLUMN file TEXT;
    CREATE UNIQUE INDEX predictions_by_file ON predictions (file) WHERE file IS NOT NULL;
    PRAGMA user_version = 2;
";
/// The schema of the first version.
const SCHEMA_1: &str = "
    CREATE TABLE predictions (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, attempts INTEGER NOT NULL, started_at INTEGER,
        completed_at INTEGER, owed INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX predictions_by_status ON predictions (status, seq);
    CREATE INDEX predictions_owed ON predictions (seq) WHERE owed;
    CREATE TABLE pictures (seq INTEGER PRIMARY KEY, png BLOB NOT NULL) STRICT;
    PRAGMA user_version = 1;
";

/// A record as both versions wrote it.
fn old_record(id: &str, seq: u64, webhook: bool) -> String {
    json!({"prediction": {"completed_at": "2026-11-24T06:08:00.140349+00:00", "created_at": "2026-11-24T06:08:00.140349+00:00",
        "error": null, "id": id, "input": {"prompt": "a", "negative_prompt": "", "width": 512, "height": 512,
        "guidance_scale": 7.5, "sync_weight": 20.0, "sync_decay_rate": 0.99, "sync_freq": 1, "sync_threshold": 5,
        "num_inference_steps": 50, "stride": 16, "seed": 2, "loop_closure": false}, "logs": "", "metrics": {}, "model": null,
        "output": null, "started_at": null, "status": "starting", "urls": {"cancel": "c", "get": "g", "stream": "s"},
        "version": null}, "seq": seq, "attempts": 0, "deadline": null,
        "webhook": webhook.then(|| json!({"url": "http://a/", "events": ["completed"], "trace": []}))})
    .to_string()
}

#[tokio::test]
async fn a_folder_of_the_first_version_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let connection = database(dir.path());
    connection.execute_batch(SCHEMA_1).unwrap();
    let row = "INSERT INTO predictions (seq, id, status, attempts, record) VALUES (1, 'old', 'succeeded', 1, ?1)";
    connection.execute(row, [old_record("old", 1, false)]).unwrap();
    connection.execute("INSERT INTO pictures VALUES (1, x'00')", []).unwrap();
    drop(connection);
    for _ in 0..2 {
        let store = Sqlite::open(dir.path()).unwrap();
        let old = store.get("old").await.unwrap().unwrap();
        assert_eq!((old.record.file, old.picture.as_deref()), (None, Some(&[0][..])));
        assert!(store.file("old").await.unwrap().is_none());
    }
    assert_eq!(inspect(dir.path()), None);
    assert_eq!(inspect(&dir.path().join("not yet")), None);
    database(dir.path()).execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(inspect(dir.path()).unwrap().found.contains("newer than this program"));
    assert!(Sqlite::open(dir.path()).err().unwrap().to_string().contains("newer than this program"));
}

#[tokio::test]
async fn a_folder_of_the_second_version_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let connection = database(dir.path());
    connection.execute_batch(SCHEMA_2).unwrap();
    let rows = [
        (3, "ended", "succeeded", 1, false, Some("ended.png")),
        (4, "owes", "failed", 1, true, None),
        (5, "ran", "processing", 1, false, None),
        (6, "waited", "starting", 0, false, None),
        (7, "ran twice", "processing", 2, true, None),
    ];
    for (seq, id, status, attempts, webhook, file) in rows {
        let (ended, owed) = (matches!(status, "succeeded" | "failed"), status == "failed");
        let row = "INSERT INTO predictions (seq, id, status, attempts, completed_at, owed, bytes, record, file)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let completed = ended.then_some(1_795_500_480_140_349_i64);
        let values =
            rusqlite::params![seq, id, status, attempts, completed, owed, 3, old_record(id, seq, webhook), file];
        connection.execute(row, values).unwrap();
    }
    connection.execute("INSERT INTO pictures VALUES (3, x'010203')", []).unwrap();
    drop(connection);
    let store = Sqlite::open(dir.path()).unwrap();
    let mut adopted = store.adopt().await.unwrap().records;
    adopted.sort_by_key(|record| record.seq);
    assert_eq!(ids(&adopted), ["owes", "ran", "waited", "ran twice"]);
    assert_eq!(status(&store, "ran twice").await, Status::Failed);
    assert_eq!(store.get("ended").await.unwrap().unwrap().picture.as_deref(), Some(&[1, 2, 3][..]));
    assert_eq!(store.file("ended.png").await.unwrap().as_deref(), Some(&[1, 2, 3][..]));
    let first = claim(&store).await;
    assert_eq!((first.record.prediction.id.as_str(), first.attempts, first.units > 0.0), ("ran", 2, true));
    assert_eq!(claim(&store).await.record.prediction.id, "waited");
    assert_eq!(accept(&store, record("new")).await, 8);
    assert!(store.delete("ended").await.unwrap());
    assert!(store.file("ended.png").await.unwrap().is_none());
    store.mark_delivered("owes", 4).await.unwrap();
    assert_eq!(store.sweep(Retention { count: Some(0), ..Retention::default() }).await.unwrap(), 1);
    let left: i64 = database(dir.path()).query_row("SELECT count(*) FROM pictures_2", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn opening_gives_back_what_the_process_before_held() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    for id in ["runs", "stops", "given back", "waits"] {
        accept(&store, with_webhook(id)).await;
    }
    let held = store.claim(Wants::any(3)).await.unwrap();
    assert_eq!(store.stop("stops").await.unwrap(), Stopped::Asked);
    store.give_back(&held[2].claim, false, "said\n".to_owned()).await.unwrap();
    let second = Sqlite::open(dir.path()).err().unwrap().to_string();
    assert!(second.contains("another server uses"), "{second}");
    drop(store);

    let store = Sqlite::open(dir.path()).unwrap();
    assert_eq!(ids(&store.adopt().await.unwrap().records), ["runs", "given back", "waits", "stops"]);
    assert_eq!(status(&store, "stops").await, Status::Canceled, "a cancel that was answered survives");
    assert_eq!(store.finish(&held[0].claim, succeeded(&held[0]), Vec::new()).await.unwrap(), Outcome::Fenced);
    let runs = claim(&store).await;
    assert_eq!((runs.record.prediction.id.as_str(), runs.attempts), ("runs", 2));
    let back = claim(&store).await;
    assert_eq!((back.record.prediction.logs.as_str(), back.attempts), ("said\n", 1));
    drop(store);

    let store = Sqlite::open(dir.path()).unwrap();
    store.adopt().await.unwrap();
    let failed = store.get("runs").await.unwrap().unwrap();
    assert_eq!((failed.record.prediction.status, failed.owed), (Status::Failed, true));
    assert_eq!(claim(&store).await.record.prediction.id, "given back");
}

#[tokio::test]
async fn the_order_of_tenants_survives() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    for (id, tenant) in [("a0", "a"), ("a1", "a"), ("a2", "a"), ("b0", "b")] {
        let new = New { tenant: tenant.to_owned(), ..New::of(record(id), 10.0) };
        store.accept(new, Room::ANY).await.unwrap();
    }
    claim(&store).await;
    drop(store);
    let store = Sqlite::open(dir.path()).unwrap();
    let mut order = Vec::new();
    while let Some(claimed) = store.claim(Wants::any(1)).await.unwrap().pop() {
        order.push(claimed.record.prediction.id.clone());
    }
    assert_eq!(order, ["a0", "b0", "a1", "a2"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_costs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    for id in ["ended", "fine"] {
        end(&store, record(id), b"png").await;
    }
    for id in ["waits", "waits too"] {
        accept(&store, record(id)).await;
    }
    drop(store);
    let damage = "UPDATE predictions SET record = '{' WHERE id IN ('ended', 'waits')";
    assert_eq!(database(dir.path()).execute(damage, []).unwrap(), 2);
    let found = inspect(dir.path()).unwrap();
    assert!(found.is_problem && found.found.contains("the record of number 3 cannot be read"), "{found:?}");
    let store = Sqlite::open(dir.path()).unwrap();
    assert_eq!(inspect(dir.path()), None, "a server uses it");
    for status in [None, Some(Status::Succeeded), Some(Status::Starting)] {
        let listed = store.list(Query { limit: 9, status, ..Query::default() }).await.unwrap();
        assert!(!listed.is_empty() && ids(&listed).iter().all(|id| ["fine", "waits too"].contains(id)), "{listed:?}");
    }
    let why = store.get("waits").await.unwrap_err().to_string();
    assert!(why.contains("predictions.sqlite") && why.contains("number 3"), "{why}");
    assert_eq!(claim(&store).await.record.prediction.id, "waits too");
    assert!(store.delete("waits").await.unwrap() && store.delete("ended").await.unwrap());
    assert!(!store.delete("waits too").await.unwrap());
}

#[tokio::test]
async fn a_damaged_file_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("predictions.sqlite"), vec![0x5a; 5000]).unwrap();
    let why = Sqlite::open(dir.path()).err().unwrap().to_string();
    let file = dir.path().join("predictions.sqlite").display().to_string();
    let found = inspect(dir.path()).unwrap();
    assert!(found.is_problem && found.found == format!("`{file}`: file is not a database"), "{found:?}");
    assert!(found.advice.contains(".recover"), "{found:?}");
    assert!(
        why.contains(&format!("`{file}`: file is not a database"))
            && why.contains(&format!("`sqlite3 {file} .recover`")),
        "{why}"
    );
    let failure =
        |code| StoreError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)).to_string();
    assert!(failure(rusqlite::ffi::SQLITE_IOERR_LOCK).contains("cannot lock files"));
    assert!(failure(rusqlite::ffi::SQLITE_PROTOCOL).contains("cannot lock files"));
    assert!(failure(rusqlite::ffi::SQLITE_BUSY).contains("another program has locked it"));
}

#[tokio::test]
async fn the_room_of_what_is_removed_goes_back_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    for n in 1..20 {
        end(&store, record(&n.to_string()), &vec![7; 1 << 20]).await;
    }
    store.sweep(Retention { count: Some(1), ..Retention::default() }).await.unwrap();
    drop(store);
    let size = dir.path().join("predictions.sqlite").metadata().unwrap().len();
    assert!(size < 4 << 20, "{size} bytes are left");
}
