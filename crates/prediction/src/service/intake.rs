//! The way in: checks readiness and room, stores, queues, and hands out a [`Ticket`](super::Ticket).

use std::sync::Arc;
use std::time::Duration;

use protocol::Input;
use tracing::{Instrument as _, Span};

use super::{Service, Shared, Table, Ticket};
use crate::live::{End, Live, Stage, Stop};
use crate::store::{Record, StoreError};
use crate::time::Time;
use crate::webhook::subscription::Webhook;
use crate::wire::{Metrics, Prediction, Status, Urls};

/// How often a worker is given a prediction before it is given up.
pub(super) const ATTEMPTS: u32 = 2;

/// A prediction that is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its id; made up if absent.
    pub id: Option<String>,
    /// What is to be made.
    pub input: Input,
    /// Whom to tell.
    pub webhook: Option<Webhook>,
    /// Where its picture is sent: a URL to which the name of the file is added.
    pub output_file_prefix: Option<String>,
    /// Address of the server, for the URLs of the prediction.
    pub base: String,
    /// How long from now until it is given up.
    pub cancel_after: Option<Duration>,
    /// Whether it goes on when whoever asked for it leaves.
    pub goes_on: bool,
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

/// Why a prediction was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// No worker has loaded yet, or none ever will.
    #[error("Setup has not finished yet. Wait until it has finished, or GET /health-check for status.")]
    NotReady,
    /// There is no queue and every worker is taken.
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

impl Service {
    /// Takes a prediction in. When this returns [`Submitted::New`] it is stored.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn submit(&self, request: Request) -> Result<Submitted, Refused> {
        let submitted = self.take(request).await;
        if let Err(refused) = &submitted {
            metrics::counter!("syncdiffusion_predictions_refused_total", "reason" => refused.name()).increment(1);
        }
        submitted
    }

    async fn take(&self, request: Request) -> Result<Submitted, Refused> {
        let (idempotent, goes_on) = (request.idempotent, request.goes_on);
        let live = match self.shared.reserve(request)? {
            Reserved::New(live) => live,
            Reserved::Known(live) => return self.shared.known(&live, idempotent).await,
        };
        // From here on the id is taken, so this part runs to its end even if nobody waits for it any more.
        let shared = Arc::clone(&self.shared);
        let span = live.span.clone();
        let accepted = tokio::spawn(async move { shared.accept(live, idempotent, goes_on).await }.instrument(span));
        accepted.await.unwrap_or(Err(Refused::Closing))
    }
}

enum Reserved {
    New(Arc<Live>),
    Known(Arc<Live>),
}

impl Shared {
    /// Takes an id and a place, or finds who has it.
    fn reserve(&self, request: Request) -> Result<Reserved, Refused> {
        let mut table = self.table();
        if let Some(live) = request.id.as_ref().and_then(|id| table.live.get(id)) {
            return Ok(Reserved::Known(Arc::clone(live)));
        }
        if table.closing {
            return Err(Refused::Closing);
        }
        if !table.takes_work() {
            return Err(Refused::NotReady);
        }
        // A place is needed only for what is new, and an id may be known to the store.
        if !request.idempotent {
            self.take_room(&mut table)?;
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
            id,
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
        let live = Arc::new(Live::new(record, Stage::Accepting, self.options.stream_history, span));
        table.live.insert(live.id.clone(), Arc::clone(&live));
        Ok(Reserved::New(live))
    }

    /// Takes a place for one more, if one more may wait.
    fn take_room(&self, table: &mut Table) -> Result<(), Refused> {
        let waiting = table.queue.len() + table.accepting;
        let free = table.free();
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
        table.accepting += 1;
        Ok(())
    }

    /// Stores a reserved prediction and queues it.
    async fn accept(self: Arc<Self>, live: Arc<Live>, idempotent: bool, goes_on: bool) -> Result<Submitted, Refused> {
        if idempotent {
            match self.store.get(&live.id).await {
                Ok(Some(stored)) if stored.record.prediction.status.is_terminal() => {
                    let prediction = stored.into_prediction();
                    self.release(&live, Stage::Ended(Arc::new(prediction.clone())));
                    return Ok(Submitted::Ended(Box::new(prediction)));
                }
                Ok(_) => {}
                Err(error) => {
                    self.release(&live, Stage::Refused(error.to_string()));
                    return Err(error.into());
                }
            }
            let room = self.take_room(&mut self.table());
            if let Err(refused) = room {
                self.release(&live, Stage::Refused(refused.to_string()));
                return Err(refused);
            }
        }
        if let Err(error) = self.store.accept(live.record()).await {
            self.table().accepting -= 1;
            self.release(&live, Stage::Refused(error.to_string()));
            return Err(error.into());
        }
        tracing::info!("prediction accepted");
        let ticket = Ticket::new(Arc::clone(&self), Arc::clone(&live), goes_on);
        self.enqueue(&live, 1);
        Ok(Submitted::New(ticket))
    }

    /// Gives back the id that was reserved.
    fn release(&self, live: &Arc<Live>, stage: Stage) {
        self.table().live.remove(&live.id);
        live.stage.send_replace(stage);
    }

    /// Waits until a known id is stored and tells how it stands.
    async fn known(&self, live: &Arc<Live>, idempotent: bool) -> Result<Submitted, Refused> {
        if !idempotent {
            return Err(Refused::Exists(live.id.clone()));
        }
        let mut stage = live.stage.subscribe();
        let stored = stage.wait_for(|stage| !matches!(stage, Stage::Accepting)).await.map(|stage| stage.clone());
        match stored {
            Ok(Stage::Ended(prediction)) => Ok(Submitted::Ended(Box::new((*prediction).clone()))),
            Ok(Stage::Refused(why)) => Err(Refused::NotStored(why)),
            _ => Ok(Submitted::Live(Box::new(self.look(&live.id).unwrap_or_else(|| live.snapshot())))),
        }
    }

    /// Puts a stored prediction into the queue, in exchange for the place it has taken, and to work if there is room.
    fn enqueue(self: &Arc<Self>, live: &Arc<Live>, places: usize) {
        self.webhooks.follow(live);
        live.stage.send_replace(Stage::Accepted);
        if let Some(deadline) = live.deadline {
            let (shared, live) = (Arc::downgrade(self), Arc::downgrade(live));
            tokio::spawn(async move {
                tokio::time::sleep(deadline.from_now()).await;
                if let (Some(shared), Some(live)) = (shared.upgrade(), live.upgrade()) {
                    shared.stop(&live, Stop::Canceled);
                }
            });
        }
        let mut table = self.table();
        table.accepting -= places;
        // A cancel may have come while it was being stored.
        if live.state().stop.is_some() {
            drop(table);
            self.conclude(Arc::clone(live), End::Canceled, None);
            return;
        }
        table.queue.insert(live.seq, Arc::clone(live));
        self.dispatch(&mut table);
    }

    /// Takes up a prediction that an earlier process left unfinished.
    pub(super) fn take_up(self: &Arc<Self>, record: Record) {
        let attempts = record.attempts;
        let span = tracing::error_span!(parent: None, "prediction", prediction_id = record.prediction.id);
        let live = Arc::new(Live::new(record, Stage::Accepted, self.options.stream_history, span));
        self.table().live.insert(live.id.clone(), Arc::clone(&live));
        if attempts >= ATTEMPTS {
            self.webhooks.follow(&live);
            let why = format!("it was interrupted {attempts} times by the end of the server or its worker");
            self.conclude(live, End::Failed(why), None);
            return;
        }
        live.take_back(None);
        self.enqueue(&live, 0);
    }
}

impl Table {
    /// Whether predictions are taken: a worker is there, or was and comes back.
    pub(super) fn takes_work(&self) -> bool {
        self.crew.iter().any(super::Post::takes_work)
    }

    /// How many predictions could begin at once.
    fn free(&self) -> usize {
        self.crew.iter().map(super::Post::free).sum()
    }

    /// When there will be room again, as far as that can be told.
    fn retry_after(&self) -> Duration {
        let ahead = self.crew.iter().flat_map(super::Post::running);
        let first = ahead.filter_map(|live| live.state().prediction.metrics.seconds_left).reduce(f64::min);
        let average = self.seconds_before(u64::MAX).map(|all| all / (self.queue.len() + 1) as f64);
        Duration::from_secs_f64(first.or(average).unwrap_or(5.0).clamp(1.0, 3600.0).ceil())
    }
}
