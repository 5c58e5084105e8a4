//! What all parts of a service share: how it behaves, the store, and the table of what this process works on or answers
//! for.
//!
//! The other files of this folder add to [`Shared`] what happens at one point of a prediction's way. What always holds:
//! locks are taken in the order table, prediction, feed, and never across an await.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use protocol::{Input, Model};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::copies::Copies;
use super::setup::Setup;
use super::workers::Workers;
use crate::active::ActivePrediction;
use crate::cost::{self, Rate};
use crate::given_pictures::PictureIntake;
use crate::lifecycle::Phase;
use crate::mutex::lock;
use crate::outgoing::Gate;
use crate::store::{About, Board, Place, Retention, Room, Store, Wants};
use crate::upload::{self, Uploader};
use crate::webhook::{self, WebhookSender};
use crate::wire::Prediction;

/// How long a node that has work leaves what waits to idle ones.
const IDLE_FIRST: Duration = Duration::from_millis(200);

/// How a service behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many predictions may wait when all workers are busy.
    pub queue_size: usize,
    /// How many predicted seconds of work may wait; no limit if absent.
    pub queue_seconds: Option<f64>,
    /// How long a prediction may run; no limit if absent.
    pub max_predict: Option<Duration>,
    /// How long a worker with a job may be silent before it counts as hung.
    pub hang: Duration,
    /// How long a worker may take to load.
    pub load: Duration,
    /// What the store keeps of what has ended.
    pub retention: Retention,
    /// Whether only what was accepted for the model of this node is claimed: others of the store may serve others.
    pub own_model: bool,
    /// Whether predictions are accepted while no node has a worker, for the model of the last that had one.
    pub accept_without_workers: bool,
    /// The dtype that workers must compute in, where all of a store are to draw the same.
    pub dtype: Option<String>,
    /// How long the beat of another node may stand still before it counts as dead.
    pub lease: Duration,
    /// How webhooks are sent.
    pub webhooks: webhook::Options,
    /// Where pictures go.
    pub place: upload::Place,
    /// Whether pictures contain how they were made.
    pub metadata: bool,
    /// Which URLs of clients may be called.
    pub gate: Gate,
    /// How many events of a prediction are shown to those who begin to follow it later.
    pub stream_history: usize,
}

/// What the handles of a service, its requests, its supervisors and its timers share.
pub(super) struct Shared {
    /// Read everywhere, changed nowhere.
    pub(super) options: Options,
    /// Holds every prediction that was accepted, and the queue.
    pub(super) store: Arc<dyn Store>,
    /// Follows every prediction that has a webhook.
    pub(super) webhooks: WebhookSender,
    /// Sends pictures where they are to go, by its HTTP clients.
    pub(super) uploader: Uploader,
    /// Which small copies of pictures are being made.
    pub(super) copies: Copies,
    /// Receives pictures, and bounds how many at once.
    pub(super) picture_intake: PictureIntake,
    /// One lock for what changes together: which workers there are, what they hold, and how many claims that makes.
    table: Mutex<Table>,
    /// Notified when there may be something to claim, or room for it.
    pub(super) wake: Arc<Notify>,
    /// Work that is to be done before the process ends: encoding and sending pictures, storing ends.
    pub(super) tasks: TaskTracker,
    /// The store may hold what nobody looks after: an acceptance had no answer, or this node was taken for dead.
    pub(super) unsure: AtomicBool,
    /// Cancelled when no worker is left and none will be started.
    pub(super) gone: CancellationToken,
    /// Cancelled when what waits in the store will not begin in this process any more.
    pub(super) halted: CancellationToken,
}

/// What this process works on or answers for.
pub(super) struct Table {
    /// By id, so that requests find it. An id is here from before it is stored until its end is.
    pub(super) active: HashMap<String, Arc<ActivePrediction>>,
    pub(super) workers: Workers,
    /// How many claims have been received from the store and are accounted for in `workers`. The store compares it with
    /// what it has handed out, so that no more is accepted than there is room for while a claim is under way.
    pub(super) claims: u64,
    /// Ends that are decided and could not be stored yet, and why, by the number of the prediction. They are tried
    /// again; meanwhile nothing new is accepted.
    pub(super) unstored: BTreeMap<u64, String>,
    /// Ends of other nodes whose pictures are being read, by number.
    pub(super) learning: BTreeSet<u64>,
    /// The model that the workers have loaded, once the first has said which: new predictions show it.
    pub(super) model: Option<Model>,
    /// What the newest other node with a ready worker said last, for a node that has none.
    pub(super) told: Option<About>,
    /// Whether there ever were other nodes: then what is left to the store may go on and end there.
    pub(super) fleet: bool,
    /// Whether an answer of the store was lost: what it holds may have ended there without anybody to say so.
    pub(super) doubtful: bool,
    /// What it cannot be used with, and why: schedulers by name, and `image`.
    pub(super) unusable: BTreeMap<String, String>,
    /// How fast this machine is, for estimates.
    pub(super) rate: Rate,
    /// What the other nodes of the store say of themselves.
    pub(super) others: Vec<About>,
    /// What waits for versions that no node draws, as of the last look.
    pub(super) unserved: BTreeMap<String, Board>,
    /// As in [`Options`].
    pub(super) accepts_without_workers: bool,
    /// For the health check.
    pub(super) setup: Setup,
    /// The server stops: nothing is accepted, and nothing is given to workers.
    pub(super) closing: bool,
}

impl Shared {
    pub(super) fn new(
        options: Options,
        store: Arc<dyn Store>,
        webhooks: WebhookSender,
        uploader: Uploader,
        picture_intake: PictureIntake,
        table: Table,
    ) -> Self {
        Self {
            options,
            store,
            webhooks,
            uploader,
            copies: Copies::default(),
            picture_intake,
            table: Mutex::new(table),
            wake: Arc::default(),
            tasks: TaskTracker::new(),
            unsure: AtomicBool::default(),
            gone: CancellationToken::new(),
            halted: CancellationToken::new(),
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    pub(super) fn active(&self, id: &str) -> Option<Arc<ActivePrediction>> {
        self.table().active.get(id).cloned()
    }

    /// A prediction that is active and stored. One that is being stored is waited for: nothing is told that is not
    /// stored, and it may yet be refused.
    pub(super) async fn stored(&self, id: &str) -> Option<Arc<ActivePrediction>> {
        let active = self.active(id)?;
        if !matches!(active.phase(), Phase::Storing) {
            return Some(active);
        }
        (!active.settled().await.is_over()).then_some(active)
    }

    /// A prediction that has not ended as it is now, its place in the queue included.
    pub(super) async fn look(&self, id: &str) -> Option<Prediction> {
        Some(self.show(&*self.stored(id).await?).await)
    }

    pub(super) async fn show(&self, active: &ActivePrediction) -> Prediction {
        let mut prediction = active.snapshot();
        if !matches!(active.phase(), Phase::Queued) {
            return prediction;
        }
        // A place that cannot be had is not shown; the prediction itself is known.
        if let Ok(Some(place)) = self.store.place(active.seq()).await {
            let table = self.table();
            let seconds = table.seconds_until_end(table.units(active), place);
            prediction.metrics.queue_position = Some(place.before);
            prediction.metrics.seconds_left = seconds.filter(|_| self.is_served(&table, &prediction));
        }
        prediction
    }

    /// Why the store accepts nothing new, if so: what the engine says of its disk, or an end that it could not store.
    pub(super) fn trouble(&self) -> Option<String> {
        self.store.trouble().or_else(|| {
            let table = self.table();
            let (count, why) = (table.unstored.len(), table.unstored.values().next()?);
            Some(format!("{count} ended predictions are not stored yet, and this is tried again: {why}"))
        })
    }

    /// There may be something to claim, or room for it.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }
}

impl Table {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            active: HashMap::new(),
            workers: Workers::new(workers),
            claims: 0,
            unstored: BTreeMap::new(),
            learning: BTreeSet::new(),
            model: None,
            told: None,
            fleet: false,
            doubtful: false,
            unusable: BTreeMap::new(),
            rate: Rate::default(),
            others: Vec::new(),
            unserved: BTreeMap::new(),
            accepts_without_workers: false,
            setup: Setup::default(),
            closing: false,
        }
    }

    /// What a prediction costs, in the units of [`cost`].
    pub(super) fn units(&self, active: &ActivePrediction) -> f64 {
        cost::units(active.input(), self.geometry(), active.given.image())
    }

    /// The same of what runs elsewhere, whose pictures are not known here.
    pub(super) fn units_elsewhere(&self, input: &Input) -> f64 {
        cost::units(input, self.geometry(), None)
    }

    /// Estimated seconds until a prediction in the queue has ended.
    pub(super) fn seconds_until_end(&self, units: f64, place: Place) -> Option<f64> {
        let ready = (self.others_ready() + self.workers.slots().len() as u64) as f64;
        let own = self.rate.seconds(units).or_else(|| self.fleet_speed().map(|speed| units / (speed / ready.max(1.0))));
        self.seconds_before(place.units).zip(own).map(|(before, own)| before + own)
    }

    /// Estimated seconds until a worker gets to what has this cost before it in the queue.
    fn seconds_before(&self, units: f64) -> Option<f64> {
        if let Some(speed) = self.fleet_speed() {
            return Some(units / speed);
        }
        self.rate.seconds((units + self.running_units()) / self.workers.share() as f64)
    }

    /// What is left to do on the workers.
    fn running_units(&self) -> f64 {
        self.workers.running().map(|active| (1.0 - active.progress_share()) * self.units(active)).sum()
    }

    /// How much may wait for one more to be accepted, by the limits of the queue.
    pub(super) fn room(&self, queue_size: usize, queue_seconds: Option<f64>) -> Room {
        let stranded = self.stranded();
        let free = self.workers.free() as u64 + self.others_free() + stranded.waiting;
        let unit = self.rate.seconds(1.0).filter(|seconds| *seconds > 0.0);
        let speed = self.fleet_speed().or_else(|| unit.map(|unit| self.workers.share() as f64 / unit));
        let units = queue_seconds.zip(speed).map_or(f64::INFINITY, |(most, speed)| most * speed - self.running_units());
        let units = units + stranded.units;
        Room { free, jobs: free.saturating_add(queue_size as u64), units, claims: self.claims }
    }

    /// What may be claimed now; `None` if there is no room on the workers. `own_model` as in [`Options`].
    pub(super) fn wants(&self, own_model: bool) -> Option<Wants> {
        let places = if self.closing { 0 } else { self.workers.free() };
        let alone = self.workers.choose(true).is_some();
        // Other nodes may be idle.
        let is_busy = !self.others.is_empty() && self.workers.running().next().is_some();
        let waited = if is_busy { IDLE_FIRST } else { Duration::ZERO };
        let version = self.model.as_ref().filter(|_| own_model).map(|model| model.version.clone());
        (places > 0).then(|| Wants { alone, waited, version, ..Wants::any(places) })
    }

    /// When there will be room again, as far as that can be estimated.
    pub(super) fn retry_after(&self, board: Board) -> Duration {
        let first = self.workers.running().filter_map(|active| active.seconds_left()).reduce(f64::min);
        let average = self.seconds_before(board.units).map(|all| all / (board.waiting + 1) as f64);
        Duration::from_secs_f64(first.or(average).unwrap_or(5.0).clamp(1.0, 3600.0).ceil())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tracing::Span;
    use uuid::Uuid;

    use super::*;
    use crate::feed::Feed;
    use crate::store::{Claim, record_of};
    use crate::time::Time;

    /// A prediction of 100 units: one window, 50 guided steps.
    fn active() -> Arc<ActivePrediction> {
        let input = json!({"prompt": "a", "width": 512, "num_inference_steps": 50, "sync_threshold": 0});
        Arc::new(ActivePrediction::resume(record_of("a", &input, 1), true, Feed::new(0), Span::none()))
    }

    fn begin(table: &mut Table) -> Arc<ActivePrediction> {
        let running = active();
        running.claim(Claim { seq: 1, token: Uuid::new_v4() }, 1);
        running.begin(0, "1".to_owned(), Time::now(), None).unwrap();
        table.workers.run(0, "1".to_owned(), Arc::clone(&running), false);
        running
    }

    #[test]
    fn estimates_add_up_what_is_before_and_share_it_among_the_workers() {
        let mut table = Table::new(2);
        let (last, two, three) = (active(), Place { before: 2, units: 200.0 }, Board { waiting: 3, units: 300.0 });
        assert_eq!(
            (table.seconds_until_end(table.units(&last), two), table.retry_after(three)),
            (None, Duration::from_secs(5))
        );
        // 100 units take 20 seconds.
        table.rate.learn(100.0, 20.0, 0);
        table.workers.slot(0).ready(1);
        assert_eq!(table.seconds_until_end(table.units(&last), Place::default()), Some(20.0));
        assert_eq!(table.seconds_until_end(table.units(&last), two), Some(60.0));
        assert_eq!(table.retry_after(three), Duration::from_secs(15), "60 seconds by 3 and the new one");

        let running = begin(&mut table);
        assert_eq!(table.seconds_until_end(table.units(&last), two), Some(80.0));
        running.progress(1, 4, 3.0, 0.25);
        assert_eq!(table.seconds_until_end(table.units(&last), two), Some(75.0), "a quarter is done");
        assert_eq!(table.retry_after(three), Duration::from_secs(9), "what runs has 9 seconds left");
        table.workers.slot(1).ready(1);
        assert_eq!(table.seconds_until_end(table.units(&last), two), Some(47.5), "two workers");
        running.progress(1, 4, 8000.0, 0.5);
        assert_eq!(table.retry_after(three), Duration::from_hours(1), "at most");
    }

    #[test]
    fn room_is_what_the_options_and_the_workers_leave() {
        let mut table = Table::new(2);
        table.workers.slot(0).ready(1);
        table.workers.slot(1).ready(1);
        let room = table.room(5, Some(30.0));
        assert_eq!(room, Room { free: 2, jobs: 7, units: f64::INFINITY, claims: 0 }, "nothing is known of the pace");
        table.rate.learn(100.0, 20.0, 0);
        assert!((table.room(5, Some(30.0)).units - 300.0).abs() < 1e-9, "30 seconds of two workers");
        assert_eq!(table.room(5, None).units, f64::INFINITY);
        begin(&mut table).progress(1, 4, 1.0, 0.5);
        table.claims = 1;
        let room = table.room(0, Some(30.0));
        assert_eq!((room.free, room.jobs, room.claims), (1, 1, 1));
        assert!((room.units - 250.0).abs() < 1e-9, "half of what runs is left: {}", room.units);
    }

    #[test]
    fn what_is_claimed_fits_the_workers() {
        let mut table = Table::new(1);
        assert!(table.wants(false).is_none());
        table.workers.slot(0).ready(3);
        let wants = table.wants(false).unwrap();
        assert_eq!((wants.places, wants.alone), (3, true));
        begin(&mut table);
        let wants = table.wants(false).unwrap();
        assert_eq!((wants.places, wants.alone), (2, false), "a suspect gets a worker for itself");
        table.closing = true;
        assert!(table.wants(false).is_none());
    }
}
