//! The way in: checks readiness and room, stores, queues, and returns a [`Ticket`].

use std::sync::Arc;
use std::time::Duration;

use protocol::Input;
use tracing::{Instrument as _, Span};

use super::follow::Ticket;
use super::shared::{Shared, Table};
use crate::active::ActivePrediction;
use crate::lifecycle::{End, Phase};
use crate::store::{Record, StoreError};
use crate::time::Time;
use crate::webhook::subscription::Webhook;
use crate::wire::{Metrics, Prediction, Status, Urls};

/// How often a worker is given a prediction before it is given up.
pub(super) const MAX_ATTEMPTS: u32 = 2;

/// A prediction that is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its id; made up if absent.
    pub id: Option<String>,
    /// What is to be made.
    pub input: Input,
    /// Where its events are sent.
    pub webhook: Option<Webhook>,
    /// Where its picture is sent: a URL to which the name of the file is added.
    pub output_file_prefix: Option<String>,
    /// Address of the server, for the URLs of the prediction.
    pub base: String,
    /// How long from now until it is given up.
    pub cancel_after: Option<Duration>,
    /// Whether it continues when whoever asked for it leaves.
    pub detached: bool,
    /// Whether the same id means the same prediction (PUT); otherwise an id that has ended may be used again.
    pub idempotent: bool,
    /// What is logged of the prediction is logged in here; `prediction_id` is recorded in it.
    pub span: Span,
}

/// What came of a request.
#[derive(Debug)]
pub enum Submitted {
    /// A new prediction.
    New(Ticket),
    /// The id waits or runs already.
    Live(Box<Prediction>),
    /// The id has ended.
    Ended(Box<Prediction>),
}

/// Why a prediction was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// No worker has loaded yet, or none ever will.
    #[error("Setup has not finished yet. Wait until it has finished, or GET /health-check for status.")]
    NotReady,
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
    /// The server is about to stop.
    #[error("the server is shutting down; try again later")]
    Closing,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store failed for the request that first named the id.
    #[error("{0}")]
    NotStored(String),
}

impl Refused {
    /// The reason in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::Busy => "busy",
            Self::Full { .. } => "full",
            Self::Exists(_) => "exists",
            Self::Closing => "closing",
            Self::Store(_) | Self::NotStored(_) => "store",
        }
    }
}

enum Reserved {
    New(Arc<ActivePrediction>),
    Known(Arc<ActivePrediction>),
}

impl Shared {
    /// Accepts a prediction. When this returns [`Submitted::New`] it is stored.
    pub(super) async fn submit(self: &Arc<Self>, request: Request) -> Result<Submitted, Refused> {
        let submitted = self.admit(request).await;
        if let Err(refused) = &submitted {
            metrics::counter!("syncdiffusion_predictions_refused_total", "reason" => refused.name()).increment(1);
        }
        submitted
    }

    async fn admit(self: &Arc<Self>, request: Request) -> Result<Submitted, Refused> {
        let (idempotent, detached) = (request.idempotent, request.detached);
        let active = match self.reserve(request)? {
            Reserved::New(active) => active,
            Reserved::Known(active) => return self.known(&active, idempotent).await,
        };
        // From here on the id is reserved, so this part runs to its end even if nobody waits for it any more.
        let shared = Arc::clone(self);
        let span = active.span.clone();
        let accepted = tokio::spawn(async move { shared.accept(active, idempotent, detached).await }.instrument(span));
        accepted.await.unwrap_or(Err(Refused::Closing))
    }

    /// Reserves an id and a place in the queue, or finds who has the id.
    fn reserve(&self, request: Request) -> Result<Reserved, Refused> {
        let mut table = self.table();
        if let Some(active) = request.id.as_ref().and_then(|id| table.active.get(id)) {
            return Ok(Reserved::Known(Arc::clone(active)));
        }
        if table.closing {
            return Err(Refused::Closing);
        }
        if !table.workers.accept_work() {
            return Err(Refused::NotReady);
        }
        // A place is needed only for what is new, and an id may be known to the store.
        if !request.idempotent {
            self.reserve_place(&mut table)?;
        }
        let now = Time::now();
        table.last_seq += 1;
        let id = request.id.unwrap_or_else(|| format!("pred_{}", uuid::Uuid::now_v7().simple()));
        request.span.record("prediction_id", &id);
        let prediction = Prediction {
            completed_at: None,
            created_at: now,
            error: None,
            urls: Urls::new(&request.base, &id),
            id: id.clone(),
            input: request.input,
            logs: String::new(),
            metrics: Metrics::default(),
            model: table.model.as_ref().map(|model| model.name.clone()),
            output: None,
            started_at: None,
            status: Status::Starting,
            version: table.model.as_ref().map(|model| model.version.clone()),
        };
        let deadline = request.cancel_after.map(|wait| now.after(wait));
        let Request { webhook, output_file_prefix, span, .. } = request;
        let seq = table.last_seq;
        let record = Record { prediction, seq, attempts: 0, webhook, output_file_prefix, file: None, deadline };
        let active = Arc::new(ActivePrediction::new(record, self.options.stream_history, span));
        table.active.insert(id, Arc::clone(&active));
        Ok(Reserved::New(active))
    }

    /// Reserves a place in the queue, if one more may wait.
    fn reserve_place(&self, table: &mut Table) -> Result<(), Refused> {
        let waiting = table.queue.len() + table.storing;
        let free = table.workers.free();
        if waiting >= free + self.options.queue_size {
            if self.options.queue_size == 0 {
                return Err(Refused::Busy);
            }
            return Err(Refused::Full { after: table.retry_after() });
        }
        let seconds = table.seconds_before(u64::MAX);
        if waiting >= free && self.options.queue_seconds.zip(seconds).is_some_and(|(most, seconds)| seconds > most) {
            return Err(Refused::Full { after: table.retry_after() });
        }
        table.storing += 1;
        Ok(())
    }

    /// Stores a reserved prediction and queues it.
    async fn accept(
        self: Arc<Self>,
        active: Arc<ActivePrediction>,
        idempotent: bool,
        detached: bool,
    ) -> Result<Submitted, Refused> {
        if idempotent {
            match self.store.get(active.id()).await {
                Ok(Some(stored)) if stored.record.prediction.status.is_terminal() => {
                    let prediction = stored.into_prediction();
                    self.forget(&active);
                    active.known(prediction.clone());
                    return Ok(Submitted::Ended(Box::new(prediction)));
                }
                Ok(_) => {}
                Err(error) => return Err(self.release(&active, error.into())),
            }
            let reserved = self.reserve_place(&mut self.table());
            if let Err(refused) = reserved {
                return Err(self.release(&active, refused));
            }
        }
        if let Err(error) = self.store.accept_unqueued(active.accepted().clone()).await {
            self.table().storing -= 1;
            return Err(self.release(&active, error.into()));
        }
        tracing::info!("prediction accepted");
        let ticket = Ticket::new(Arc::clone(&self), Arc::clone(&active), detached);
        active.stored();
        let mut table = self.table();
        // In exchange for its place in the queue, so that no other request finds both free.
        table.storing -= 1;
        self.enqueue(&mut table, active);
        Ok(Submitted::New(ticket))
    }

    /// Gives up a reserved id.
    fn release(&self, active: &Arc<ActivePrediction>, refused: Refused) -> Refused {
        self.forget(active);
        active.refuse(&refused.to_string());
        refused
    }

    /// Waits until a known id is stored and says how it stands.
    async fn known(&self, active: &Arc<ActivePrediction>, idempotent: bool) -> Result<Submitted, Refused> {
        if !idempotent {
            return Err(Refused::Exists(active.id().to_owned()));
        }
        match active.until(|phase| !matches!(phase, Phase::Storing)).await {
            Phase::Ended(prediction) => Ok(Submitted::Ended(Box::new(Prediction::clone(&prediction)))),
            Phase::Refused(why) => Err(Refused::NotStored(why)),
            _ => Ok(Submitted::Live(Box::new(self.look(active.id()).unwrap_or_else(|| active.snapshot())))),
        }
    }

    /// Puts a stored prediction into the queue, and to work if there is room.
    fn enqueue(self: &Arc<Self>, table: &mut Table, active: Arc<ActivePrediction>) {
        self.webhooks.follow(&active);
        self.stop_at_deadline(&active);
        // It may have been canceled while it was being stored.
        if active.is_to_stop() {
            self.finish(&active, End::Canceled, None);
        } else {
            table.queue.insert(active.seq(), active);
            self.dispatch(table);
        }
    }

    /// Queues a prediction that an earlier process left unfinished, or ends it if that has happened too often.
    pub(super) fn resume(self: &Arc<Self>, mut stored: Record) {
        let attempts = stored.attempts;
        let exhausted = attempts >= MAX_ATTEMPTS;
        if !exhausted {
            stored.prediction.started_at = None;
        }
        let span = tracing::error_span!(parent: None, "prediction", prediction_id = stored.prediction.id);
        let active = Arc::new(ActivePrediction::resume(stored, self.options.stream_history, span));
        let mut table = self.table();
        table.active.insert(active.id().to_owned(), Arc::clone(&active));
        if exhausted {
            self.webhooks.follow(&active);
            let why = format!("it was interrupted {attempts} times by the end of the server or its worker");
            self.finish(&active, End::Failed(why), None);
        } else {
            self.enqueue(&mut table, active);
        }
    }
}
