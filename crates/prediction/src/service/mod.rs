//! The service: takes predictions in, gives them to workers, keeps what comes out.
//!
//! A [`Service`] owns the table of everything that has not ended. What always holds:
//! - a prediction is in the store before its submission is answered, and its end before anybody is told of it;
//! - the queue is first in, first out, and what a lost worker held goes back to its front;
//! - locks are taken in the order table, prediction, feed, and never across an await.

mod crew;
mod follow;
mod health;
mod intake;
mod shutdown;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::{Command, Model};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use follow::{Follower, Ticket};
pub use health::{Census, Health, Setup, State};
pub use intake::{Refused, Request, Submitted};

use crate::cost::{self, Rate};
use crate::input::Geometry;
use crate::live::{End, Live, Place, Stop};
use crate::outgoing::Gate;
use crate::store::{Query, Record, Retention, Store, StoreError, Stored};
use crate::upload::{self, PlaceError, Uploader};
use crate::webhook::{self, WebhookSender};
use crate::wire::{Output, Prediction};
use crate::worker::{Program, supervise};
pub(crate) use crew::Duty;
use crew::Post;

/// How a service behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many predictions may wait when all workers are taken.
    pub queue_size: usize,
    /// How many predicted seconds of work may wait; no limit if absent.
    pub queue_seconds: Option<f64>,
    /// How long a prediction may run; no limit if absent.
    pub max_predict: Option<Duration>,
    /// How long a worker with a job may say nothing before it counts as hung.
    pub hang: Duration,
    /// How long a worker may take to load.
    pub load: Duration,
    /// What the store keeps of what has ended.
    pub retention: Retention,
    /// How webhooks are sent.
    pub webhooks: webhook::Options,
    /// What predictions give out.
    pub place: upload::Place,
    /// Whether pictures tell how they were made.
    pub metadata: bool,
    /// Which URLs of clients are called.
    pub gate: Gate,
    /// How many events of a prediction are shown to those who begin to follow it later.
    pub stream_history: usize,
}

/// The service. Clones are handles to the same one.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) options: Options,
    store: Arc<dyn Store>,
    webhooks: WebhookSender,
    uploader: Uploader,
    table: Mutex<Table>,
    tasks: TaskTracker,
}

/// Everything that has not ended, and who works on it.
struct Table {
    live: HashMap<String, Arc<Live>>,
    queue: BTreeMap<u64, Arc<Live>>,
    /// How many have a place and are being stored.
    accepting: usize,
    last_seq: u64,
    last_job: u64,
    crew: Vec<Post>,
    model: Option<Model>,
    rate: Rate,
    setup: Setup,
    closing: bool,
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There can be no HTTP client.
    #[error("cannot set up the sending of webhooks: {0}")]
    Client(#[from] reqwest::Error),
    /// Pictures cannot be sent where they are to go.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl Service {
    /// Takes up what the store holds unfinished and starts one worker for each program. Returns before they have loaded.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn start(store: Arc<dyn Store>, options: Options, programs: Vec<Program>) -> Result<Self, StartError> {
        let (unfinished, owed, last_seq) = (store.unfinished().await?, store.owed().await?, store.last_seq().await?);
        let webhooks = WebhookSender::new(options.webhooks.clone(), options.gate.clone(), Arc::clone(&store))?;
        let uploader = Uploader::new(&options.place, &options.gate)?;
        let table = Table {
            live: HashMap::new(),
            queue: BTreeMap::new(),
            accepting: 0,
            last_seq,
            last_job: 0,
            crew: programs.iter().map(|_| Post::default()).collect(),
            model: None,
            rate: Rate::default(),
            setup: Setup::default(),
            closing: false,
        };
        let shared = Arc::new(Shared {
            options,
            store,
            webhooks,
            uploader,
            table: Mutex::new(table),
            tasks: TaskTracker::new(),
        });
        for record in owed {
            shared.webhooks.resume(record);
        }
        for record in unfinished {
            shared.take_up(record);
        }
        for (index, program) in programs.into_iter().enumerate() {
            tokio::spawn(supervise::run(Arc::clone(&shared), index, program));
        }
        tokio::spawn(sweep(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Whether predictions are taken: a worker has loaded, and is there or comes back.
    pub fn takes_work(&self) -> bool {
        self.shared.table().takes_work()
    }

    /// The sizes of the model, once a worker has told them.
    pub fn geometry(&self) -> Option<Geometry> {
        self.shared.table().model.as_ref().map(Geometry::from)
    }

    /// The prediction of an id.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn get(&self, id: &str) -> Result<Option<Prediction>, StoreError> {
        if let Some(prediction) = self.shared.look(id) {
            return Ok(Some(prediction));
        }
        let stored = self.shared.store.get(id).await?;
        Ok(stored.map(Stored::into_prediction))
    }

    /// The PNG of a prediction that has ended with one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn picture(&self, id: &str) -> Result<Option<Arc<[u8]>>, StoreError> {
        Ok(self.shared.store.get(id).await?.and_then(|stored| stored.picture))
    }

    /// The PNG that is given out under a name.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn file(&self, name: &str) -> Result<Option<Arc<[u8]>>, StoreError> {
        self.shared.store.file(name).await
    }

    /// Decides which URLs of clients are called.
    pub fn gate(&self) -> &Gate {
        &self.shared.options.gate
    }

    /// Predictions newest first, with their places. A stored picture is left out, and so the output is what
    /// [`Service::picture`] gives.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(&self, query: Query) -> Result<Vec<(u64, Prediction)>, StoreError> {
        let records = self.shared.store.list(query).await?;
        Ok(records
            .into_iter()
            .map(|record| (record.seq, self.shared.look(&record.prediction.id).unwrap_or(record.prediction)))
            .collect())
    }

    /// Removes a prediction that has ended.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        self.shared.store.delete(id).await
    }

    /// Whether a prediction waits or runs.
    pub fn is_live(&self, id: &str) -> bool {
        self.shared.table().live.contains_key(id)
    }

    /// Stops a prediction that waits or runs. False if there is none, or its end is being stored.
    pub fn cancel(&self, id: &str) -> bool {
        let live = self.shared.table().live.get(id).cloned();
        live.is_some_and(|live| self.shared.stop(&live, Stop::Canceled))
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A live prediction as it is now, its place in the queue included.
    fn look(&self, id: &str) -> Option<Prediction> {
        let table = self.table();
        let live = table.live.get(id)?;
        let mut prediction = live.snapshot();
        if table.queue.contains_key(&live.seq) {
            let metrics = &mut prediction.metrics;
            metrics.queue_position = Some(table.queue.range(..live.seq).count() as u64);
            metrics.seconds_left = table.seconds_before(live.seq).zip(table.seconds_of(live)).map(|(a, b)| a + b);
        }
        Some(prediction)
    }

    /// Asks a prediction to stop, wherever it is; false if it is ending already.
    pub(crate) fn stop(self: &Arc<Self>, live: &Arc<Live>, stop: Stop) -> bool {
        if !live.ask_to_stop(stop) {
            return false;
        }
        let mut table = self.table();
        if table.queue.remove(&live.seq).is_some() {
            drop(table);
            self.conclude(Arc::clone(live), End::Canceled, None);
            return true;
        }
        let place = live.state().place.clone();
        if let Place::Running { worker, job } = place {
            table.crew[worker].send(Command::Cancel { job });
        }
        true
    }

    /// Stores the end of a prediction, then tells it. What ended before stays as it was.
    fn conclude(self: &Arc<Self>, live: Arc<Live>, end: End, kept: Option<Kept>) {
        let Some(prediction) = live.end(end) else { return };
        let (shared, span) = (Arc::clone(self), live.span.clone());
        let conclusion = async move {
            let (picture, file) = kept.map_or((None, None), |Kept { png, file }| (Some(png), file));
            let record = without_data(Record { prediction: prediction.clone(), file, ..live.record() });
            let owed = live.webhook.as_ref().is_some_and(|webhook| webhook.wants(webhook::EventKind::Completed));
            if let Err(error) = shared.store.finish(record, picture, owed).await {
                tracing::error!(%error, "the end of a prediction could not be stored");
            }
            let mut table = shared.table();
            if table.live.get(&live.id).is_some_and(|known| Arc::ptr_eq(known, &live)) {
                table.live.remove(&live.id);
            }
            drop(table);
            let status = prediction.status.name();
            tracing::info!(status, "prediction ended");
            metrics::counter!("syncdiffusion_predictions_total", "status" => status).increment(1);
            if let (Some(_), Some(seconds)) = (prediction.started_at, prediction.metrics.predict_time) {
                metrics::histogram!("syncdiffusion_predict_seconds", "status" => status).record(seconds);
            }
            live.tell_end(prediction);
        };
        self.tasks.spawn(conclusion.instrument(span));
    }
}

impl Table {
    fn geometry(&self) -> Geometry {
        self.model.as_ref().map(Geometry::from).unwrap_or_default()
    }

    /// Estimated seconds of work of a prediction.
    fn seconds_of(&self, live: &Live) -> Option<f64> {
        self.rate.seconds(cost::units(&live.input, self.geometry()))
    }

    /// Estimated seconds until a place in the queue comes up.
    fn seconds_before(&self, seq: u64) -> Option<f64> {
        let waiting = self.queue.range(..seq).map(|(_, live)| cost::units(&live.input, self.geometry()));
        let running = self.crew.iter().flat_map(Post::running).map(|live| {
            let left = 1.0 - live.state().prediction.metrics.progress.unwrap_or(0.0);
            left * cost::units(&live.input, self.geometry())
        });
        let workers = self.crew.iter().filter(|post| post.is_ready()).count().max(1);
        self.rate.seconds(waiting.chain(running).sum::<f64>() / workers as f64)
    }
}

/// What is stored of a picture beside its prediction.
struct Kept {
    png: Arc<[u8]>,
    /// The name under which it is given out, if it is.
    file: Option<String>,
}

/// The record without a picture that is stored beside it; a URL stays.
fn without_data(mut record: Record) -> Record {
    record.prediction.output.take_if(|output| matches!(output, Output::Whole(text) if text.starts_with("data:")));
    record
}

/// Lets retention act now and then, as long as there is a service.
async fn sweep(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let retention = shared.options.retention;
        if retention.age.is_some() || retention.count.is_some() || retention.bytes.is_some() {
            match shared.store.sweep(retention).await {
                Ok(0) => {}
                Ok(gone) => tracing::info!(gone, "old predictions were removed"),
                Err(error) => tracing::error!(%error, "old predictions could not be removed"),
            }
        }
        drop(shared);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}
