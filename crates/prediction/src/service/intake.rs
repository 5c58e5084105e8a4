//! The way in: checks readiness and room, stores, queues, and returns a [`Ticket`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use tracing::Instrument as _;

use super::follow::Ticket;
use super::receive::Received;
use super::request::{Refused, Request, Submitted};
use super::shared::{Shared, Table};
use crate::active::ActivePrediction;
use crate::feed::Feed;
use crate::lifecycle::Phase;
use crate::store::{Accepted, Board, Key, New, Picture, Record, StoreError, Stored};
use crate::time::Time;
use crate::wire::{Metrics, Prediction, Status, Urls};

/// The waits for a webhook that is being delivered, in milliseconds.
const DELIVERY_WAITS: [u64; 6] = [10, 20, 40, 80, 160, 320];

/// The first line of the logs of a prediction that is accepted while no worker is there.
const WITHOUT_WORKERS: &str = "no server has a worker now; this prediction waits until one has\n";

enum Reserved {
    New(Arc<ActivePrediction>),
    Known(Arc<ActivePrediction>),
}

impl Table {
    /// Whether there are workers for a new prediction, or it may wait for one.
    pub(super) fn readiness(&self) -> Result<(), Refused> {
        match self.workers.why_lost() {
            _ if self.takes_work() => Ok(()),
            Some(why) => Err(Refused::NoWorker(why.to_owned())),
            None => Err(Refused::NotReady),
        }
    }
}

impl Shared {
    /// Accepts a prediction. When this returns [`Submitted::New`] it is stored.
    pub(super) async fn submit(self: &Arc<Self>, request: Request) -> Result<Submitted, Refused> {
        let submitted = self.admit(request).await;
        // An input that is not valid is not refused for want of anything here.
        if let Err(refused) = &submitted
            && !matches!(refused, Refused::Invalid(_))
        {
            metrics::counter!("syncdiffusion_predictions_refused_total", "reason" => refused.name()).increment(1);
        }
        submitted
    }

    async fn admit(self: &Arc<Self>, mut request: Request) -> Result<Submitted, Refused> {
        let Request { idempotent, detached, ref name, ref key, .. } = request;
        let (name, key) = (name.clone(), key.clone());
        // Whatever has become of the pictures of the first request, or of the room, since.
        if let Some(key) = &key
            && let Some(stored) = self.store.of_key(&name, &key.name).await?
        {
            return Self::repeated(key, stored);
        }
        if let Some(id) = &request.id {
            self.catch_up(id).await;
        }
        let repeats = move |active: &ActivePrediction| idempotent || (key.is_some() && active.accepted().key == key);
        // Whoever waits or runs already needs no pictures.
        let known = request.id.as_ref().filter(|_| request.names_pictures()).and_then(|id| self.active(id));
        if let Some(active) = known {
            return self.known(&active, repeats(&active)).await;
        }
        let misfits = self.table().misfits(&request.input);
        if !misfits.is_empty() {
            return Err(Refused::Invalid(misfits));
        }
        let received = if request.names_pictures() {
            self.expects()?;
            let sent = std::mem::take(&mut request.sent);
            self.receive(&mut request.input, sent, &request.base, (request.fitting, request.wanted.crop)).await?
        } else {
            Received::default()
        };
        let active = match self.reserve(request)? {
            Reserved::New(active) => {
                active.given.sized(received.image);
                active
            }
            Reserved::Known(active) => return self.known(&active, repeats(&active)).await,
        };
        // From here on the id is reserved, so this part runs to its end even if nobody waits for it any more.
        let shared = Arc::clone(self);
        let span = active.span.clone();
        let accepted = tokio::spawn(
            async move { shared.accept(active, name, received, idempotent, detached).await }.instrument(span),
        );
        accepted.await.unwrap_or(Err(Refused::Closing))
    }

    /// Whether a prediction would be accepted, before anything is done for it.
    fn expects(&self) -> Result<(), Refused> {
        if let Some(why) = self.trouble() {
            return Err(Refused::Trouble(why));
        }
        let room = {
            let table = self.table();
            if table.closing {
                return Err(Refused::Closing);
            }
            table.readiness()?;
            table.room(self.options.queue_size, self.options.queue_seconds)
        };
        if self.store.admits(&room) { Ok(()) } else { Err(self.full(self.store.board())) }
    }

    /// Reserves an id among the requests of this process, or finds who has it.
    fn reserve(&self, request: Request) -> Result<Reserved, Refused> {
        let trouble = self.trouble();
        let mut table = self.table();
        if let Some(active) = request.id.as_ref().and_then(|id| table.active.get(id)) {
            return Ok(Reserved::Known(Arc::clone(active)));
        }
        if table.closing {
            return Err(Refused::Closing);
        }
        table.readiness()?;
        if let Some(why) = trouble {
            return Err(Refused::Trouble(why));
        }
        let now = Time::now();
        let id = request.id.unwrap_or_else(|| format!("pred_{}", uuid::Uuid::now_v7().simple()));
        request.span.record("prediction_id", &id);
        let prediction = Prediction {
            completed_at: None,
            created_at: now,
            error: None,
            urls: Urls::new(&request.base, &id),
            id: id.clone(),
            input: request.input,
            logs: if table.is_staffed() { String::new() } else { WITHOUT_WORKERS.to_owned() },
            metrics: Metrics::default(),
            model: table.model().map(|model| model.name.clone()),
            output: None,
            started_at: None,
            status: Status::Starting,
            version: table.model().map(|model| model.version.clone()),
        };
        let deadline = request.cancel_after.map(|wait| now.after(wait));
        let Request { webhook, output_file_prefix, wanted, key, asker, span, .. } = request;
        let (seq, attempts, file) = (0, 0, None);
        let record =
            Record { prediction, seq, attempts, webhook, output_file_prefix, wanted, file, deadline, key, asker };
        let active = Arc::new(ActivePrediction::new(record, self.options.stream_history, span));
        table.active.insert(id, Arc::clone(&active));
        Ok(Reserved::New(active))
    }

    /// Has the store accept a prediction whose id is reserved.
    async fn accept(
        self: Arc<Self>,
        active: Arc<ActivePrediction>,
        name: String,
        Received { pictures, room, .. }: Received,
        idempotent: bool,
        detached: bool,
    ) -> Result<Submitted, Refused> {
        match self.ask(&active, &name, pictures, idempotent).await {
            Ok(Accepted::New(seq)) => {
                tracing::info!("prediction accepted");
                {
                    let mut table = self.table();
                    // Another node's of the same id may have been shown meanwhile.
                    if table.fleet && matches!(active.phase(), Phase::Storing) {
                        table.active.insert(active.id().to_owned(), Arc::clone(&active));
                    }
                }
                active.given.hold(room);
                let ticket = Ticket::new(Arc::clone(&self), Arc::clone(&active), detached);
                active.stored(seq);
                self.webhooks.follow(&active);
                self.give_up_at_deadline(&active);
                self.wake();
                Ok(Submitted::New(ticket))
            }
            Ok(Accepted::Known(stored)) => self.found(&active, *stored, idempotent),
            Ok(Accepted::Full(board)) => Err(self.release(&active, self.full(board))),
            Err(error) => {
                // It may be stored all the same.
                self.unsure.store(true, Ordering::Relaxed);
                Err(self.release(&active, error.into()))
            }
        }
    }

    /// Asks the store to accept a prediction. A webhook that is being delivered is waited for a moment: whoever has
    /// received it may use the id again at once.
    async fn ask(
        &self,
        active: &ActivePrediction,
        name: &str,
        pictures: Vec<Picture>,
        idempotent: bool,
    ) -> Result<Accepted, StoreError> {
        let mut waits = DELIVERY_WAITS.into_iter();
        loop {
            let (new, room) = {
                let table = self.table();
                let units = table.units(active);
                let (tenant, inputs, record) = (name.to_owned(), pictures.clone(), active.accepted().clone());
                let key = record.key.as_ref().map(|key| key.name.clone());
                let new = New { tenant, key, idempotent, inputs, ..New::of(record, units) };
                (new, table.room(self.options.queue_size, self.options.queue_seconds))
            };
            let accepted = self.store.accept(new, room).await?;
            let is_pending =
                |stored: &Stored| !idempotent && stored.owed && !active.accepted().shares_key(&stored.record);
            match &accepted {
                Accepted::Known(stored) if is_pending(stored) => {
                    let Some(wait) = waits.next() else { return Ok(accepted) };
                    sleep(Duration::from_millis(wait)).await;
                }
                _ => return Ok(accepted),
            }
        }
    }

    /// The store knows the id of a request, or its key.
    fn found(&self, active: &Arc<ActivePrediction>, stored: Stored, idempotent: bool) -> Result<Submitted, Refused> {
        if let Some(key) = active.accepted().key.as_ref().filter(|_| active.accepted().shares_key(&stored.record)) {
            self.release(active, Refused::Exists(active.id().to_owned()));
            return Self::repeated(key, stored);
        }
        let (id, ended) = (active.id().to_owned(), stored.record.prediction.status.is_terminal());
        if !idempotent {
            return Err(self.release(active, if ended { Refused::Undelivered(id) } else { Refused::Exists(id) }));
        }
        let prediction = stored.into_prediction();
        if !ended {
            // Another node of a fleet accepted it.
            self.release(active, Refused::Exists(id));
            return Ok(Submitted::Live(Box::new(prediction)));
        }
        self.forget(active);
        active.known(prediction.clone());
        Ok(Submitted::Ended(Box::new(prediction)))
    }

    /// The store knows the key of a request: it repeats an earlier one, or uses its key for something else.
    fn repeated(key: &Key, stored: Stored) -> Result<Submitted, Refused> {
        if stored.record.key.as_ref() != Some(key) {
            return Err(Refused::KeyUsed);
        }
        let prediction = Box::new(stored.into_prediction());
        Ok(if prediction.status.is_terminal() { Submitted::Ended(prediction) } else { Submitted::Live(prediction) })
    }

    /// Why there is no room beside what waits already.
    fn full(&self, board: Board) -> Refused {
        if self.options.queue_size == 0 {
            Refused::Busy
        } else {
            Refused::Full { after: self.table().retry_after(board) }
        }
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
        match active.settled().await {
            Phase::Ended(prediction) => Ok(Submitted::Ended(Box::new(Prediction::clone(&prediction)))),
            Phase::Refused(why) => Err(Refused::NotStored(why)),
            _ => Ok(Submitted::Live(Box::new(self.show(active).await))),
        }
    }

    /// Looks after what an earlier process left: what has not ended waits in the store, and what has ended has a
    /// webhook to deliver.
    pub(super) fn adopt(self: &Arc<Self>, record: Record) {
        if record.prediction.status.is_terminal() {
            self.webhooks.resume(record);
            return;
        }
        let active = {
            let mut table = self.table();
            match table.active.get(&record.prediction.id).filter(|known| known.is_of(&record)).cloned() {
                // It was only run or shown here.
                Some(known) if known.keep_from_now() => known,
                Some(_) => return,
                None => {
                    let active = self.resumed(record, true);
                    table.active.insert(active.id().to_owned(), Arc::clone(&active));
                    active
                }
            }
        };
        self.webhooks.follow(&active);
        self.give_up_at_deadline(&active);
    }

    /// A stored prediction with a span of its own.
    pub(super) fn resumed(&self, record: Record, kept: bool) -> Arc<ActivePrediction> {
        let span = tracing::error_span!(parent: None, "prediction", prediction_id = record.prediction.id);
        // Its events may have had other numbers in another process.
        let feed = Feed::apart(self.options.stream_history);
        Arc::new(ActivePrediction::resume(record, kept, feed, span))
    }
}
