//! Where predictions are kept: the [`Store`] trait and its engines.
//!
//! A store holds every accepted prediction until retention removes it. What always holds: when [`Store::accept`] or [`Store::finish`] has
//! answered, what it was given survives the end of the process (of the machine, with a durable engine). Writes take effect in the order
//! in which the methods were called and first polled.
//!
//! Every engine passes the tests of `suite`.

pub mod memory;
pub mod sqlite;
#[cfg(test)]
mod suite;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use memory::Memory;
pub use sqlite::Sqlite;

use crate::output;
use crate::time::Time;
use crate::webhook::subscription::Webhook;
use crate::wire::{Output, Prediction, Status};

/// The answer of a store.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store could not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine failed.
    #[error("the store failed: {0}")]
    Engine(String),
    /// What was stored cannot be read.
    #[error("the store holds a record that cannot be read: {0}")]
    Corrupt(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// A prediction as it is stored: what the wire shows, without the picture, and what the service needs besides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The prediction; its output is left out where the picture is kept apart.
    pub prediction: Prediction,
    /// Place in the order of acceptance.
    pub seq: u64,
    /// How many times a worker was given it.
    pub attempts: u32,
    /// Whom to tell.
    pub webhook: Option<Webhook>,
    /// Where the picture is to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file_prefix: Option<String>,
    /// Name under which the picture is given out, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// When it is given up.
    pub deadline: Option<Time>,
}

/// A record and its picture.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// The PNG.
    pub picture: Option<Arc<[u8]>>,
}

impl Stored {
    /// The prediction with the picture that was stored beside it, unless its output is a URL.
    pub fn into_prediction(self) -> Prediction {
        let mut prediction = self.record.prediction;
        if let (Some(png), None, Status::Succeeded) = (self.picture, &prediction.output, prediction.status) {
            prediction.output = Some(Output::Whole(output::data_uri(&png)));
        }
        prediction
    }
}

/// Which records to list, newest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query {
    /// Only those accepted before this place.
    pub before: Option<u64>,
    /// Only those accepted after this place; the oldest of them, still newest first.
    pub after: Option<u64>,
    /// Only those with this status.
    pub status: Option<Status>,
    /// At most so many.
    pub limit: usize,
}

/// What is removed. Only what has ended and owes no webhook is; the oldest go first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// What ended longer ago than this.
    pub age: Option<Duration>,
    /// What goes beyond so many ended predictions.
    pub count: Option<u64>,
    /// What goes beyond so many bytes of pictures.
    pub bytes: Option<u64>,
}

/// An engine that keeps predictions.
pub trait Store: Send + Sync + 'static {
    /// Whether records outlive the process.
    fn durable(&self) -> bool;

    /// Stores a new prediction, in place of one with the same id.
    fn accept(&self, record: Record) -> Answer<'_, ()>;

    /// Notes that a worker was given a prediction (`Some`) or that it waits again (`None`), and how many attempts that makes.
    fn note(&self, id: &str, seq: u64, started_at: Option<Time>, attempts: u32) -> Answer<'_, ()>;

    /// Stores the end of a prediction with its picture. `owed` says that its webhook is to be told.
    fn finish(&self, record: Record, picture: Option<Arc<[u8]>>, owed: bool) -> Answer<'_, ()>;

    /// The prediction of an id.
    fn get(&self, id: &str) -> Answer<'_, Option<Stored>>;

    /// The picture that is given out under a name.
    fn file(&self, name: &str) -> Answer<'_, Option<Arc<[u8]>>>;

    /// Records without their pictures.
    fn list(&self, query: Query) -> Answer<'_, Vec<Record>>;

    /// Removes a prediction that has ended, with its picture. False if there is none.
    fn delete(&self, id: &str) -> Answer<'_, bool>;

    /// All that have not ended, in the order of acceptance.
    fn unfinished(&self) -> Answer<'_, Vec<Record>>;

    /// The greatest place in the order so far.
    fn last_seq(&self) -> Answer<'_, u64>;

    /// All whose webhook is owed their end, without their pictures.
    fn owed(&self) -> Answer<'_, Vec<Record>>;

    /// The webhook of a prediction has been told, or has been given up.
    fn settle(&self, id: &str, seq: u64) -> Answer<'_, ()>;

    /// Removes what retention does not keep; how many that were.
    fn sweep(&self, retention: Retention) -> Answer<'_, u64>;
}
