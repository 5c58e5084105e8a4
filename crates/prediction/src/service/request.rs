//! What is asked of the service, what comes of it, and why it is refused.

use std::time::Duration;

use protocol::Input;
use tracing::Span;

use super::follow::Ticket;
use super::receive::Unreceived;
use crate::given_pictures::{Fitting, names};
use crate::input::{Invalid, Sent};
use crate::output::Wanted;
use crate::store::{Key, StoreError};
use crate::webhook::subscription::Webhook;
use crate::wire::Prediction;

/// A prediction that is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its id; made up if absent.
    pub id: Option<String>,
    /// Name of the token that asks for it; empty where it has none.
    pub name: String,
    /// What is to be made.
    pub input: Input,
    /// Pictures that came with it.
    pub sent: Sent,
    /// Where its events are sent.
    pub webhook: Option<Webhook>,
    /// Where its picture is sent: a URL to which the name of the file is added.
    pub output_file_prefix: Option<String>,
    /// What its pictures are to be besides.
    pub wanted: Wanted,
    /// How a picture that is given as `image` is laid into them.
    pub fitting: Fitting,
    /// Address of the server, for the URLs of the prediction.
    pub base: String,
    /// How long from now until it is given up.
    pub cancel_after: Option<Duration>,
    /// Whether it continues when whoever asked for it leaves.
    pub detached: bool,
    /// Whether the same id means the same prediction (PUT); otherwise an id that has ended may be used again, once its
    /// webhook has been delivered.
    pub idempotent: bool,
    /// Its `Idempotency-Key`: a request that repeats an earlier one is answered with the prediction of that.
    pub key: Option<Key>,
    /// Who asks for it, where an interface shows callers the newest of what they asked for.
    pub asker: Option<String>,
    /// What is logged of the prediction is logged in here; `prediction_id` is recorded in it.
    pub span: Span,
}

/// What came of a request.
#[derive(Debug)]
pub enum Submitted {
    /// A new prediction.
    New(Ticket),
    /// The id, or what the key names, waits or runs already.
    Live(Box<Prediction>),
    /// The id, or what the key names, has ended.
    Ended(Box<Prediction>),
}

/// Why a prediction was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// No worker has loaded yet, or none could.
    #[error("Setup has not finished yet. Wait until it has finished, or GET /health-check for status.")]
    NotReady,
    /// No worker is left, and none will be started.
    #[error("no worker is left, and none will be started: {0}; try again when the server was started again")]
    NoWorker(String),
    /// There is no queue, and every worker is busy.
    #[error("At capacity - all prediction slots busy")]
    Busy,
    /// The queue is full.
    #[error("the queue is full; try again in {} seconds", after.as_secs())]
    Full {
        /// When to try again.
        after: Duration,
    },
    /// The id waits or runs already.
    #[error(
        "prediction `{0}` exists and has not ended; choose another id, or PUT to `/predictions/{0}` to be told of it"
    )]
    Exists(String),
    /// Another request had the key.
    #[error("this `Idempotency-Key` came with another request before; send a new key with every new request")]
    KeyUsed,
    /// The server is about to stop.
    #[error("the server is shutting down; try again later")]
    Closing,
    /// The id has ended, and its webhook has yet to be delivered, which using the id again would prevent.
    #[error(
        "the webhook of prediction `{0}` has not been delivered yet; choose another id, or DELETE `/predictions/{0}` to give the webhook up"
    )]
    Undelivered(String),
    /// Nothing new is accepted while the store cannot be written.
    #[error("{0}")]
    Trouble(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store failed for the request that first named the id.
    #[error("{0}")]
    NotStored(String),
    /// Pictures that the input names cannot be had, read or placed, or the model cannot do what it asks for.
    #[error("{}", sentences(.0))]
    Invalid(Vec<Invalid>),
    /// There is no room for pictures beside those of other requests.
    #[error("pictures of other requests fill the memory for pictures; try again")]
    PicturesFull,
}

/// Errors in one line.
fn sentences(errors: &[Invalid]) -> String {
    errors.iter().map(|Invalid { field, message, .. }| format!("{field}: {message}")).collect::<Vec<_>>().join("; ")
}

impl Refused {
    /// The reason in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::NoWorker(_) => "no_worker",
            Self::Busy => "busy",
            Self::Full { .. } => "full",
            Self::Exists(_) | Self::Undelivered(_) => "exists",
            Self::KeyUsed => "key",
            Self::Closing => "closing",
            Self::Trouble(_) | Self::Store(_) | Self::NotStored(_) => "store",
            Self::Invalid(_) => "invalid",
            Self::PicturesFull => "pictures_full",
        }
    }
}

impl From<Unreceived> for Refused {
    fn from(unreceived: Unreceived) -> Self {
        match unreceived {
            Unreceived::Invalid(errors) => Self::Invalid(errors),
            Unreceived::Full => Self::PicturesFull,
            Unreceived::Store(error) => error.into(),
        }
    }
}

impl Request {
    /// Whether its input names pictures.
    pub(super) fn names_pictures(&self) -> bool {
        names(&self.input).next().is_some()
    }
}
