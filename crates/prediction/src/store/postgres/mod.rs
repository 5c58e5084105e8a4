//! A store in a PostgreSQL database, which any number of nodes share.
//!
//! The database is the truth: who waits, who holds what, what has ended. Each transition is one statement, most of
//! them a function of `functions.sql`, so a node that is frozen or cut off in the middle of one holds no locks. A node
//! has a thread and three connections: writes go out in the order of their calls ([`lane`]), beats and small reads do
//! not wait for them ([`looks`]), and pictures wait for none of these and are waited for by none. A fourth takes files
//! of clients, where there are any.
//!
//! What was accepted, ended or asked to stop is on the disk of the server, and of its synchronous standby, before it
//! is answered. A claim, a beat and progress are not waited for: to lose one costs a repeated run, never a result.
//!
//! When an answer is lost with its connection, what it was about may have been done. A write is then tried again, and
//! finds what it did: an acceptance by the name of its request, an end by its token. If the database does not come
//! back, an acceptance is an error, and what was accepted is adopted later; an end is tried again by the caller. What
//! was claimed without an answer is given back. When an answer only takes too long, as that to a commit whose standby
//! is away, nothing is tried again and nothing else is written until it comes ([`link`]).
//!
//! Pictures are in tables or, where the nodes have agreed on one, in a bucket ([`place`], [`agree`]): an object is put
//! there under a name of its own before its row is written ([`finishing`], [`accepting`]), and goes after its row
//! ([`orphans`]). A row says where its picture is, so both may be beside each other.
//!
//! Nothing is bound to a session but for the time of a transaction: no statement is named, nothing listens, settings
//! and locks are local. So a pooler may give each transaction another connection to the server.

mod accepting;
mod address;
mod agree;
mod connect;
mod engine;
mod explain;
mod files;
mod finishing;
mod inspect;
mod lane;
mod link;
mod looks;
mod nodes;
mod objects;
mod orphans;
mod place;
mod previews;
mod probe;
mod putting;
mod rows;
mod schema;
mod search;
mod settings;
mod shared;
mod sweep;
#[cfg(test)]
mod tests;
mod tls;
mod writes;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, mpsc};

use tokio::runtime::Runtime;

use crate::bucket::Access;
use crate::store::error::StoreError;
use address::Address;
use connect::{connect, within};
pub use inspect::{Inspected, inspect as inspect_database, inspect_pictures};
use lane::Lane;
use link::{Kind, Link, PATIENCE};
use putting::Objects;
use shared::Shared;

/// The engine.
pub struct Postgres {
    shared: Arc<Shared>,
    address: Arc<Address>,
    lane: Lane,
    /// Only ever empty while it is dropped.
    runtime: Option<Runtime>,
}

impl Postgres {
    /// Opens the store of a database, `postgres://USER:PASSWORD@HOST:PORT/NAME`, as a new node. An empty database gets
    /// its tables.
    ///
    /// # Errors
    /// If the URL is wrong, the server does not answer or refuses, or the database is another program's or of another
    /// version. Nothing is changed then.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Self::node(Arc::new(Address::parse(url)?))
    }

    /// Another node of the same store.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn join(&self) -> Result<Self, StoreError> {
        let node = Self::node(Arc::clone(&self.address))?;
        let (ours, its) = (&self.shared.objects, &node.shared.objects);
        its.set_access(ours.access());
        if let Some(place) = ours.place() {
            its.set_place(place, ours.for_new().is_some());
        }
        Ok(node)
    }

    /// Has new pictures lie in a bucket from now on: the one that is asked for, `s3://bucket/prefix`, or else the one
    /// that the other nodes have, if they have one. It is tried out first. Returns its URL.
    ///
    /// # Errors
    /// If the other nodes have another bucket, or this one cannot be used.
    pub fn keep_pictures(&self, asked: Option<&str>, access: Access) -> Result<Option<String>, StoreError> {
        let (shared, asked) = (Arc::clone(&self.shared), asked.map(str::to_owned));
        self.wait(async move {
            shared.objects.set_access(access.clone());
            let me = rows::number(shared.me());
            let place = agree::agree(&shared.looks, me, asked.as_deref(), &access).await?;
            Ok(place.map(|place| {
                let url = place.url().to_owned();
                shared.objects.set_place(Arc::new(place), true);
                url
            }))
        })
    }

    fn node(address: Arc<Address>) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|error| StoreError::Engine(format!("no thread can be started: {error}")))?;
        let (to, node) = mpsc::channel();
        let opening = Arc::clone(&address);
        runtime.spawn(async move { _ = to.send(open(&opening).await) });
        let node = match node.recv().unwrap_or(Err(StoreError::Closed)) {
            Ok(node) => node,
            Err(error) => {
                // The caller may be a task, which must not wait for it.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let link = |kind: Kind| Link::new(Arc::clone(&address), kind);
        let (truth, looks) = (link(Kind::Writes), link(Kind::Looks));
        let shared = Arc::new(Shared {
            truth: Arc::clone(&truth),
            bytes: link(Kind::Bytes(Arc::clone(&looks))),
            uploads: link(Kind::Uploads),
            looks,
            node: AtomicU64::new(node),
            patience: AtomicU64::new(PATIENCE.as_millis() as u64),
            handed_out: AtomicU64::default(),
            board: Mutex::default(),
            since: Mutex::default(),
            known: Mutex::default(),
            mixed: AtomicBool::default(),
            strays: AtomicU32::default(),
            straying: AtomicBool::default(),
            sweep: Mutex::default(),
            lost: Mutex::default(),
            unsure: Mutex::default(),
            unreadable: rows::Unreadable::default(),
            objects: Objects::default(),
        });
        let lane = Lane::start(runtime.handle(), truth);
        runtime.spawn(orphans::upkeep(Arc::downgrade(&shared)));
        Ok(Self { shared, address, lane, runtime: Some(runtime) })
    }

    /// A setting that all nodes share, which is `made` by the first that asks.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn setting(&self, name: &'static str, made: String) -> Result<String, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.wait(async move { Ok(shared.truth.call(|client| settings::setting(client, name, made.clone())).await?) })
    }

    /// A setting that all nodes share, if there is one.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn known(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.wait(async move { Ok(shared.truth.call(|client| settings::known(client, name)).await?) })
    }

    /// Leaves: what this node accepted is another's to look after at once. To be called when nothing is held any more.
    ///
    /// # Errors
    /// If the database does not answer; then others find out.
    pub fn leave(&self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        self.wait(async move { Ok(shared.truth.call(|client| nodes::leave(client, shared.me())).await?) })
    }

    /// Does something on the thread of the store, and waits for that. Not to be called by a task of the store.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (to, done) = mpsc::channel();
        drop(self.run(async move {
            _ = to.send(work.await);
            Ok(())
        }));
        done.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Does something on the thread of the store.
    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static {
        let running = self.runtime.as_ref().map(|runtime| runtime.spawn(work));
        async move {
            match running {
                Some(running) => running.await.unwrap_or(Err(StoreError::Closed)),
                None => Err(StoreError::Closed),
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It may be dropped by a task of another runtime, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Checks a database, and registers a node.
async fn open(address: &Address) -> Result<u64, StoreError> {
    let client = connect(address).await?;
    let opening = async {
        schema::prepare(&client).await?;
        for warning in inspect::warnings(&client).await? {
            tracing::warn!(warning, "the database may lose what it has confirmed");
        }
        Ok(nodes::register(&client).await?)
    };
    within(address, &client, opening).await
}

/// Executes statements, on a thread of its own.
#[cfg(test)]
pub(super) fn execute(url: &str, sql: &str) {
    attempt(url, sql).unwrap();
}

/// The same, and it may fail.
#[cfg(test)]
fn attempt(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (address, sql) = (Address::parse(url).unwrap(), sql.to_owned());
    let work = async move { connect(&address).await.unwrap().batch_execute(&sql).await };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(work)).join().unwrap()
}
