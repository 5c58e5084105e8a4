//! The service: accepts predictions, gives them to workers, keeps what comes out.
//!
//! ```text
//! submit -> intake -> Store and its queue -> dispatch -> workers ==> worker processes
//!   get, follow <- active prediction <- finish <- events <- supervisor <== what they send
//! ```
//!
//! A [`Service`] is a handle; what its parts share is in `shared`. What always holds: a prediction is in the store
//! before its submission is answered; the queue is first in, first out, and what a lost worker held goes back to its
//! front.

mod bounds;
mod copies;
mod dispatch;
mod events;
mod finish;
mod fleet;
mod follow;
mod gone;
mod health;
mod intake;
mod look;
mod pictures;
mod pulse;
mod receive;
mod request;
mod setup;
mod shared;
mod shutdown;
mod stop;
mod supervisor;
mod unserved;
mod watching;
mod workers;

use std::sync::{Arc, Weak};
use std::time::Duration;

pub use follow::{Follower, News, Ticket};
pub use health::{Counts, Health, State};
use protocol::Model;
pub use request::{Refused, Request, Submitted};
pub use setup::Setup;
pub use shared::Options;

use crate::given_pictures::PictureIntake;
use crate::input::{Geometry, geometry_of};
use crate::outgoing::Gate;
use crate::store::{Found, Picture, Query, Store, StoreError, Usage};
use crate::upload::{PlaceError, Uploader};
use crate::webhook::WebhookSender;
use crate::wire::Prediction;
use crate::worker::Program;
use shared::{Shared, Table};

/// How often retention acts.
const SWEEP: Duration = Duration::from_secs(10);

/// The service. Clones are handles to the same one.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There can be no thread for the sign of life.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// There can be no HTTP client.
    #[error("cannot set up an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// Pictures cannot be sent where they are to go.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl Service {
    /// Looks after what an earlier process left and starts one worker for each program. Returns before they have
    /// loaded.
    ///
    /// # Errors
    /// If the store cannot be read, or what sends webhooks and pictures cannot be set up.
    pub async fn start(store: Arc<dyn Store>, options: Options, programs: Vec<Program>) -> Result<Self, StartError> {
        let shared = Self::prepare(store, options, programs.len()).await?;
        for (worker, program) in programs.into_iter().enumerate() {
            tokio::spawn(supervisor::run(Arc::clone(&shared), worker, program));
        }
        Ok(Self { shared })
    }

    /// A service whose workers have no processes yet.
    async fn prepare(store: Arc<dyn Store>, options: Options, workers: usize) -> Result<Arc<Shared>, StartError> {
        let webhooks = WebhookSender::new(options.webhooks.clone(), options.gate.clone(), Arc::clone(&store))?;
        let uploader = Uploader::new(&options.place, &options.gate)?;
        let picture_intake = PictureIntake::new(&options.gate)?;
        let mut table = Table::new(workers);
        table.accepts_without_workers = options.accept_without_workers;
        let shared = Arc::new(Shared::new(options, store, webhooks, uploader, picture_intake, table));
        shared.take_over().await?;
        pulse::start(&shared).await?;
        tokio::spawn(dispatch::run(Arc::downgrade(&shared)));
        tokio::spawn(look::run(Arc::downgrade(&shared)));
        tokio::spawn(watching::run(Arc::downgrade(&shared)));
        if shared.options.own_model {
            tokio::spawn(unserved::run(Arc::downgrade(&shared)));
        }
        tokio::spawn(sweep(Arc::downgrade(&shared)));
        Ok(shared)
    }

    /// Accepts a prediction. When this returns [`Submitted::New`] it is stored.
    ///
    /// # Errors
    /// Why it was not accepted.
    pub async fn submit(&self, request: Request) -> Result<Submitted, Refused> {
        self.shared.submit(request).await
    }

    /// Whether predictions are accepted: a worker has loaded, and is there or comes back, or another node has one, or
    /// they may wait for one.
    pub fn accepts_work(&self) -> bool {
        self.shared.table().readiness().is_ok()
    }

    /// Whether there are workers for a new prediction, or it may wait for one.
    ///
    /// # Errors
    /// If no worker has loaded yet, or none is left.
    pub fn readiness(&self) -> Result<(), Refused> {
        self.shared.table().readiness()
    }

    /// Waits until no worker is left and none will be started; why the last was lost, or `None` if none could load.
    pub async fn without_workers(&self) -> Option<String> {
        self.shared.gone.cancelled().await;
        self.shared.table().workers.why_lost().map(str::to_owned)
    }

    /// The model, once a worker has said which.
    pub fn model(&self) -> Option<Model> {
        self.shared.table().model().cloned()
    }

    /// The sizes of the model, once a worker has reported them.
    pub fn geometry(&self) -> Option<Geometry> {
        self.shared.table().model().map(geometry_of)
    }

    /// Decides which URLs of clients may be called.
    pub fn gate(&self) -> &Gate {
        &self.shared.options.gate
    }

    /// The prediction of an id.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn get(&self, id: &str) -> Result<Option<Prediction>, StoreError> {
        self.shared.catch_up(id).await;
        if let Some(prediction) = self.shared.look(id).await {
            return Ok(Some(prediction));
        }
        self.shared.ask_store(id).await
    }

    /// The prediction of an id as it is stored, without pictures and without how far it has come: for what never
    /// changes of it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn bare(&self, id: &str) -> Result<Option<Prediction>, StoreError> {
        Ok(self.shared.store.record(id).await?.map(|record| record.prediction))
    }

    /// A picture of a prediction that has ended with it, by its number from 0; with a width, a small copy, which is
    /// made where there is none yet. See [`crate::output::thumbnail_width`] for widths.
    ///
    /// # Errors
    /// If the store cannot be read, or holds what is not a picture.
    pub async fn picture(&self, id: &str, n: u32, width: Option<u32>) -> Result<Option<Picture>, StoreError> {
        self.shared.picture(id, n, width).await
    }

    /// The PNG that is served under a name.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn file(&self, name: &str) -> Result<Option<Arc<[u8]>>, StoreError> {
        self.shared.store.file(name).await
    }

    /// Predictions newest first, with their places in the order of acceptance. A stored picture is left out, and so the
    /// output is what [`Service::picture`] returns.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(&self, query: Query<'_>) -> Result<Vec<(u64, Prediction)>, StoreError> {
        Ok(self.search(query).await?.0)
    }

    /// The same, of a query that may have a text: with the place from which to go on, if the search ended there before
    /// the list was full, see [`crate::store::Found`].
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn search(&self, query: Query<'_>) -> Result<(Vec<(u64, Prediction)>, Option<u64>), StoreError> {
        let Found { records, looked } = self.shared.store.search(query).await?;
        let mut listed = Vec::new();
        for record in records {
            let has_ended = record.prediction.status.is_terminal();
            let known = if has_ended { None } else { self.shared.look(&record.prediction.id).await };
            listed.push((record.seq, known.unwrap_or(record.prediction)));
        }
        Ok((listed, looked))
    }

    /// What was drawn for the tokens of each name, by name.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn usage(&self) -> Result<Vec<Usage>, StoreError> {
        self.shared.store.usage().await
    }

    /// Removes a prediction that has ended, and gives up its webhook if that has yet to be delivered; false if there is
    /// no such prediction.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let deleted = self.shared.store.delete(id).await?;
        self.shared.catch_up(id).await;
        Ok(deleted)
    }

    /// The newest prediction of other nodes that has not ended and that one of these asked for, and who did.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn newest_of(&self, askers: &[String]) -> Result<Option<(String, Prediction)>, StoreError> {
        self.shared.newest_of(askers).await
    }

    /// Whether a prediction has been submitted and has not ended, as far as this node knows.
    pub fn is_active(&self, id: &str) -> bool {
        self.shared.active(id).is_some()
    }

    /// Whether it is this node that ends a prediction, or accepts it.
    pub fn is_held(&self, id: &str) -> bool {
        self.shared.active(id).is_some_and(|active| !active.phase().is_left())
    }

    /// Stops a prediction that has not ended; false if there is no such prediction. When this returns, the wish is
    /// stored, and however the prediction ends now, it is canceled.
    ///
    /// # Errors
    /// If the store cannot be written; then nothing is stopped.
    pub async fn cancel(&self, id: &str) -> Result<bool, StoreError> {
        self.shared.cancel(id).await
    }

    /// A ticket to a prediction that has not ended, to wait for its end; it continues without it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn join(&self, id: &str) -> Result<Option<Ticket>, StoreError> {
        Ok(self.shared.find(id).await?.map(|active| self.shared.join(active)))
    }

    /// Follows a prediction that has not ended, from the event after number `after` on.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn follow(&self, id: &str, after: u64) -> Result<Option<Follower>, StoreError> {
        Ok(self.shared.find(id).await?.map(|active| self.shared.follow(&active, after)))
    }

    /// The state of the service.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Numbers of predictions and of workers.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Ends the service: what runs may continue for `grace`; what then has not ended goes back to the store, uncounted,
    /// or fails if the store does not outlive the process.
    pub async fn close(&self, grace: Duration) {
        self.shared.close(grace).await;
    }
}

/// Lets retention act now and then, as long as there is a service.
async fn sweep(shared: Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let retention = shared.options.retention;
        if retention.is_limited() {
            match shared.store.sweep(retention).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "old predictions were removed"),
                Err(error) => tracing::error!(%error, "old predictions could not be removed"),
            }
        }
        drop(shared);
        tokio::time::sleep(SWEEP).await;
    }
}

#[cfg(test)]
mod tests;
