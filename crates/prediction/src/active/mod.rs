//! A prediction that has not ended, in memory: what was accepted, where it is, and what is shown of it.
//!
//! What always holds: what was accepted never changes; everything else changes under one lock, by the methods here, and
//! every change that clients follow goes to the [`Feed`]; the end is published once, and it is up to the caller that it
//! was stored before.

mod attempt;
mod elsewhere;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use protocol::Input;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::feed::{Event, Feed};
use crate::given_pictures::Given;
use crate::lifecycle::{End, Lifecycle, Phase, Stop};
use crate::output::Wanted;
use crate::preview::Previews;
use crate::store::{Claim, Record};
use crate::time::Time;
use crate::webhook::subscription::Webhook;
use crate::wire::{Metrics, Output, Prediction, Status};

/// A prediction that waits or runs, or is on its way in or out.
#[derive(Debug)]
pub(crate) struct ActivePrediction {
    /// As it was accepted: what never changes, and what the store needs to know. Its number is in the state.
    accepted: Record,
    /// Whether this node looks after it; otherwise another does, and this one runs it or shows it.
    kept: AtomicBool,
    /// For clients, streams and webhooks.
    pub(crate) feed: Arc<Feed>,
    /// For those who watch it.
    pub(crate) previews: Previews,
    /// What is known of the pictures that its input names.
    pub(crate) given: Given,
    /// Cancelled when it is asked to stop, for what is under way outside of a worker.
    pub(crate) stopping: CancellationToken,
    /// What is logged of it is logged in here.
    pub(crate) span: Span,
    /// Those of several pictures that this attempt has drawn so far.
    drawn: Mutex<BTreeMap<u32, Arc<[u8]>>>,
    /// A channel, so that others can wait for a phase; they are woken by changes of the phase only.
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct State {
    life: Lifecycle,
    /// Its number in the order of acceptance, which the store assigns.
    seq: u64,
    /// How long the logs were when this attempt began.
    logs_before: usize,
    /// How many bytes of the logs of this attempt were read from another node.
    read: usize,
    shown: Shown,
}

/// What the wire shows and changes while it runs.
#[derive(Debug)]
struct Shown {
    started_at: Option<Time>,
    logs: String,
    /// Lines of the worker are left out.
    is_full: bool,
    metrics: Metrics,
    model: Option<String>,
    version: Option<String>,
}

impl Shown {
    fn prediction(&self, accepted: &Prediction, status: Status) -> Prediction {
        Prediction {
            completed_at: None,
            created_at: accepted.created_at,
            error: None,
            id: accepted.id.clone(),
            input: accepted.input.clone(),
            logs: self.logs.clone(),
            metrics: self.metrics.clone(),
            model: self.model.clone(),
            output: None,
            started_at: self.started_at,
            status,
            urls: accepted.urls.clone(),
            version: self.version.clone(),
        }
    }
}

impl ActivePrediction {
    /// A prediction that is about to be stored. Those who come later are shown its newest `history` events.
    pub(crate) fn new(accepted: Record, history: usize, span: Span) -> Self {
        Self::with(Lifecycle::storing(), accepted, true, Feed::new(history), span)
    }

    /// A prediction that the store holds unfinished; `kept` says that this node looks after it.
    pub(crate) fn resume(stored: Record, kept: bool, feed: Feed, span: Span) -> Self {
        Self::with(Lifecycle::queued(stored.attempts), stored, kept, feed, span)
    }

    fn with(life: Lifecycle, accepted: Record, kept: bool, feed: Feed, span: Span) -> Self {
        let Prediction { model, version, logs, .. } = &accepted.prediction;
        let seq = accepted.seq;
        let shown = Shown {
            started_at: None,
            logs: logs.clone(),
            is_full: false,
            metrics: Metrics::default(),
            model: model.clone(),
            version: version.clone(),
        };
        let logs_before = shown.logs.len();
        Self {
            accepted,
            kept: kept.into(),
            feed: Arc::new(feed),
            previews: Previews::default(),
            given: Given::default(),
            stopping: CancellationToken::new(),
            span,
            drawn: Mutex::default(),
            state: watch::Sender::new(State { life, seq, logs_before, read: 0, shown }),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.accepted.prediction.id
    }

    /// Its number in the order of acceptance; 0 before it is stored.
    pub(crate) fn seq(&self) -> u64 {
        self.state.borrow().seq
    }

    pub(crate) fn input(&self) -> &Input {
        &self.accepted.prediction.input
    }

    pub(crate) fn webhook(&self) -> Option<&Webhook> {
        self.accepted.webhook.as_ref()
    }

    /// Whether this node looks after its deadline and its webhook.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// From now on this node looks after it; false if it did before.
    pub(crate) fn keep_from_now(&self) -> bool {
        !self.kept.swap(true, Ordering::Relaxed)
    }

    /// Whether this is the prediction of a record, and not another of the same id.
    pub(crate) fn is_of(&self, record: &Record) -> bool {
        // What is being stored has no number yet, although it may be claimed already.
        match self.seq() {
            0 => self.accepted.prediction.created_at.micros() == record.prediction.created_at.micros(),
            seq => seq == record.seq,
        }
    }

    /// Where its picture is sent, if its request said so.
    pub(crate) fn output_file_prefix(&self) -> Option<&str> {
        self.accepted.output_file_prefix.as_deref()
    }

    /// What its pictures are to be besides.
    pub(crate) fn wanted(&self) -> Wanted {
        self.accepted.wanted
    }

    /// When it is given up.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.accepted.deadline
    }

    /// What the store accepts.
    pub(crate) fn accepted(&self) -> &Record {
        &self.accepted
    }

    /// The record of its end, as it is stored beside the picture, which `file` names if it has a URL.
    pub(crate) fn record_of(&self, ended: &Prediction, file: Option<String>) -> Record {
        let Record { webhook, output_file_prefix, wanted, deadline, key, asker, .. } = &self.accepted;
        let mut prediction = ended.clone();
        // The picture is stored by itself; a URL stays.
        prediction.output.take_if(|output| output.pictures().iter().any(|picture| picture.starts_with("data:")));
        Record {
            prediction,
            seq: self.seq(),
            attempts: self.attempts(),
            webhook: webhook.clone(),
            output_file_prefix: output_file_prefix.clone(),
            wanted: *wanted,
            file,
            deadline: *deadline,
            key: key.clone(),
            asker: asker.clone(),
        }
    }

    /// The prediction at this moment, as the wire shows it.
    pub(crate) fn snapshot(&self) -> Prediction {
        let state = self.state.borrow();
        match state.life.phase() {
            Phase::Ended(prediction) => Prediction::clone(prediction),
            phase => state.shown.prediction(&self.accepted.prediction, phase.status()),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state.borrow().life.phase().clone()
    }

    /// The logs at this moment.
    pub(crate) fn logs(&self) -> String {
        self.state.borrow().shown.logs.clone()
    }

    /// How many times it was claimed.
    pub(crate) fn attempts(&self) -> u32 {
        self.state.borrow().life.attempts()
    }

    /// Share of its work that is done, 0 to 1.
    pub(crate) fn progress_share(&self) -> f64 {
        self.state.borrow().shown.metrics.progress.unwrap_or(0.0)
    }

    /// Estimated seconds until its end, once a worker has got on with it.
    pub(crate) fn seconds_left(&self) -> Option<f64> {
        self.state.borrow().shown.metrics.seconds_left
    }

    /// Waits for the first phase of a kind.
    pub(crate) async fn until(&self, wanted: impl Fn(&Phase) -> bool) -> Phase {
        let mut state = self.state.subscribe();
        let reached = state.wait_for(|state| wanted(state.life.phase())).await;
        // The sender is in `self`, so the channel is open and the wait ends with the phase.
        reached.map_or_else(|_| self.phase(), |state| state.life.phase().clone())
    }

    /// Waits until it is stored, or is not to be.
    pub(crate) async fn settled(&self) -> Phase {
        self.until(|phase| !matches!(phase, Phase::Storing)).await
    }

    /// Changes the phase, and wakes those who wait for one if that was allowed.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Option<T>) -> Option<T> {
        let mut changed = None;
        self.state.send_if_modified(|state| {
            changed = change(state);
            changed.is_some()
        });
        changed
    }

    /// Changes what is shown; nobody waits for that.
    fn update<T>(&self, update: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut updated = None;
        self.state.send_if_modified(|state| {
            updated = Some(update(state));
            false
        });
        updated
    }

    /// It is stored under a number, and waits.
    pub(crate) fn stored(&self, seq: u64) -> bool {
        self.change(|state| {
            state.seq = seq;
            state.life.stored().then_some(())
        })
        .is_some()
    }

    /// It could not be stored.
    pub(crate) fn refuse(&self, why: &str) -> bool {
        self.change(|state| state.life.refuse(why.to_owned()).then_some(())).is_some()
    }

    /// Its id has ended before.
    pub(crate) fn known(&self, ended: Prediction) -> bool {
        self.change(|state| state.life.known(Arc::new(ended)).then_some(())).is_some()
    }

    /// It continues without this process.
    pub(crate) fn leave(&self) -> bool {
        self.change(|state| state.life.leave().then_some(())).is_some()
    }

    /// Adds a line to the logs.
    pub(crate) fn log(&self, line: &str) {
        let line = format!("{line}\n");
        self.update(|state| state.shown.logs.push_str(&line));
        self.feed.push(Event::Log(line.into()));
    }

    /// Asks it to stop, see [`Lifecycle::request_stop`].
    pub(crate) fn request_stop(&self, stop: Stop, stored: bool) -> bool {
        let asked = self.update(|state| state.life.request_stop(stop, stored)).unwrap_or_default();
        if asked {
            self.stopping.cancel();
        }
        asked
    }

    /// Takes it towards its end: what is to be stored and then published, and the claim for that; `None` if that has
    /// happened before.
    pub(crate) fn finish(&self, proposed: End) -> Option<(Claim, Prediction)> {
        let now = Time::now();
        let (claim, end, mut prediction) = self.change(|State { life, shown, .. }| {
            let (claim, end) = life.finish(proposed)?;
            Some((claim, end, shown.prediction(&self.accepted.prediction, life.phase().status())))
        })?;
        self.drawn().clear();
        prediction.completed_at = Some(now);
        let metrics = &mut prediction.metrics;
        metrics.predict_time = Some(prediction.started_at.map_or(0.0, |started| now.since(started)));
        metrics.total_time = Some(now.since(prediction.created_at));
        metrics.seconds_left = None;
        match end {
            End::Canceled => prediction.status = Status::Canceled,
            End::Failed(error) => {
                prediction.status = Status::Failed;
                prediction.error = Some(error);
            }
            End::Succeeded { output, work } => {
                prediction.status = Status::Succeeded;
                prediction.output = Some(output);
                metrics.progress = Some(1.0);
                metrics.work = Some(work);
            }
        }
        Some((claim, prediction))
    }

    /// Publishes the end that was stored, to all who follow or wait.
    pub(crate) fn publish_end(&self, ended: Prediction) {
        let ended = Arc::new(ended);
        if self.change(|state| state.life.publish(Arc::clone(&ended)).then_some(())).is_none() {
            return;
        }
        for (index, picture) in (0..).zip(ended.output.iter().flat_map(Output::pictures)) {
            self.feed.push(Event::Output(Arc::clone(picture), index));
        }
        if let Some(value) = ended.metrics.predict_time {
            self.feed.push(Event::Metric { name: "predict_time", value });
        }
        self.feed.push(Event::Completed(ended));
    }

    /// One more follows its feed; `cancel_when_unfollowed` stops it when the last of them leaves.
    pub(crate) fn follow(&self, cancel_when_unfollowed: bool) {
        self.update(|state| state.life.follow(cancel_when_unfollowed));
    }

    /// One less follows its feed; whether it is to stop for that.
    pub(crate) fn unfollow(&self) -> bool {
        self.update(|state| state.life.unfollow()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
