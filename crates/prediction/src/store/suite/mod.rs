//! The tests that every engine passes, opened as one node and as several: [`life`], [`queue`], [`lease`] and
//! [`history`], and [`model`], in which every engine answers as [`Memory`] does. [`server`]: a private PostgreSQL.

mod history;
mod lease;
mod life;
mod model;
mod queue;
pub(super) mod server;

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use super::{
    Accepted, Board, Claimed, Memory, New, Outcome, Picture, Postgres, Record, Room, Sqlite, Store, Wants, Which,
};
use crate::bucket::Access;
use crate::output::Wanted;
use crate::time::Time;
use crate::webhook::subscription::{EventKind, Webhook};
use crate::wire::Status;
use crate::wire::tests::accepted;

/// A store, by the handles of three nodes: three of them, or one thrice.
pub(super) struct Nodes {
    pub(super) a: Arc<dyn Store>,
    pub(super) b: Arc<dyn Store>,
    pub(super) c: Arc<dyn Store>,
    _dir: Option<TempDir>,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Engine {
    Memory,
    Sqlite,
    Postgres,
    /// The same with pictures in a bucket.
    Bucket,
}

impl Engine {
    /// Opens an empty store as one node or as three; `None` where the engine has no server.
    pub(super) fn open(self, several: bool) -> Option<Nodes> {
        fn nodes<S: Store>(store: S, join: impl Fn(&S) -> S, several: bool, dir: Option<TempDir>) -> Nodes {
            if several {
                let (b, c) = (Arc::new(join(&store)), Arc::new(join(&store)));
                return Nodes { a: Arc::new(store), b, c, _dir: dir };
            }
            let a = Arc::new(store);
            Nodes { b: a.clone(), c: a.clone(), a, _dir: dir }
        }
        Some(match self {
            Self::Memory => nodes(Memory::default(), Memory::join, several, None),
            Self::Sqlite => {
                // In memory where there is such a folder: what is tested is not the disk.
                let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
                nodes(Sqlite::open(dir.path()).unwrap(), Sqlite::join, several, Some(dir))
            }
            Self::Postgres => {
                let store = Postgres::open(&server::database()?).unwrap();
                nodes(store, |store| store.join().unwrap(), several, None)
            }
            Self::Bucket => {
                let store = Postgres::open(&server::database()?).unwrap();
                store.keep_pictures(Some("s3://pictures/of/mine"), in_memory()).unwrap();
                nodes(store, |store| store.join().unwrap(), several, None)
            }
        })
    }
}

/// A bucket in memory.
pub(super) fn in_memory() -> Access {
    Access { memory: Some(Arc::default()), ..Access::default() }
}

/// Makes a test of each case, for each engine as one node and as several, or as several only.
macro_rules! cases {
    (of several: $($case:ident),* $(,)?) => { $(
        mod $case {
            use crate::store::suite::Engine;

            async fn run(engine: Engine) {
                if let Some(nodes) = engine.open(true) {
                    super::$case(&nodes).await;
                }
            }

            #[tokio::test]
            async fn memory() {
                run(Engine::Memory).await;
            }

            #[tokio::test]
            async fn sqlite() {
                run(Engine::Sqlite).await;
            }

            #[tokio::test]
            async fn postgres() {
                run(Engine::Postgres).await;
            }
        }
    )* };
    ($($case:ident),* $(,)?) => { $(
        mod $case {
            use crate::store::suite::Engine;

            async fn run(engine: Engine, several: bool) {
                if let Some(nodes) = engine.open(several) {
                    super::$case(&nodes).await;
                }
            }

            #[tokio::test]
            async fn memory() {
                run(Engine::Memory, false).await;
            }

            #[tokio::test]
            async fn memory_of_several_nodes() {
                run(Engine::Memory, true).await;
            }

            #[tokio::test]
            async fn sqlite() {
                run(Engine::Sqlite, false).await;
            }

            #[tokio::test]
            async fn sqlite_of_several_nodes() {
                run(Engine::Sqlite, true).await;
            }

            #[tokio::test]
            async fn postgres() {
                run(Engine::Postgres, false).await;
            }

            #[tokio::test]
            async fn postgres_of_several_nodes() {
                run(Engine::Postgres, true).await;
            }

            #[tokio::test]
            async fn bucket_of_several_nodes() {
                run(Engine::Bucket, true).await;
            }
        }
    )* };
}
use cases;

/// A record as it is accepted.
pub(super) fn record(id: &str) -> Record {
    let prediction = accepted(id, &json!({"prompt": id}));
    let (webhook, output_file_prefix, wanted, file) = (None, None, Wanted::default(), None);
    let (deadline, key, asker) = (None, None, None);
    Record { prediction, seq: 0, attempts: 0, webhook, output_file_prefix, wanted, file, deadline, key, asker }
}

/// The same with a webhook.
pub(super) fn with_webhook(id: &str) -> Record {
    let events = EventKind::ALL.to_vec();
    let webhook = Webhook { url: "http://a/".to_owned(), events, trace: Vec::new(), translated: false };
    Record { webhook: Some(webhook), ..record(id) }
}

/// A claimed prediction as it ends.
pub(super) fn succeeded(claimed: &Claimed) -> Record {
    let mut record = (*claimed.record).clone();
    record.prediction.status = Status::Succeeded;
    record.prediction.completed_at = Some(Time::now());
    record
}

pub(super) fn picture(bytes: &[u8]) -> Picture {
    Picture { which: Which::FIRST, media: "image/png".to_owned(), file: None, bytes: bytes.into() }
}

/// Accepts a prediction that costs 1.
pub(super) async fn accept(store: &dyn Store, record: Record) -> u64 {
    match store.accept(New::of(record, 1.0), Room::ANY).await.unwrap() {
        Accepted::New(seq) => seq,
        other => panic!("{other:?}"),
    }
}

/// Claims what comes next.
pub(super) async fn claim(store: &dyn Store) -> Claimed {
    store.claim(Wants::any(1)).await.unwrap().pop().expect("something waits")
}

/// Accepts, claims and finishes a prediction with a picture.
pub(super) async fn end(store: &dyn Store, record: Record, png: &[u8]) -> Record {
    accept(store, record).await;
    let claimed = claim(store).await;
    match store.finish(&claimed.claim, succeeded(&claimed), vec![picture(png)]).await.unwrap() {
        Outcome::Ended(record) => *record,
        other => panic!("{other:?}"),
    }
}

pub(super) fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.prediction.id.as_str()).collect()
}

pub(super) async fn status(store: &dyn Store, id: &str) -> Status {
    store.get(id).await.unwrap().expect(id).record.prediction.status
}

/// How much waits: what a node knows of it once an acceptance was refused for it.
pub(super) async fn board(store: &dyn Store) -> Board {
    let none = Room { jobs: 0, ..Room::ANY };
    let Accepted::Full(board) = store.accept(New::of(record("nothing"), 0.0), none).await.unwrap() else {
        panic!("there is no room")
    };
    assert_eq!(store.board(), board);
    board
}
