//! A prediction that has not ended, in memory: the one place where its state changes.
//!
//! What always holds: status moves from starting to processing to an end and back to starting only when a worker was lost; every change is
//! told to the [`Feed`]; the end is told once, after it was stored.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{Input, Model, Work};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::feed::{Event, Feed};
use crate::progress;
use crate::store::Record;
use crate::time::Time;
use crate::webhook::subscription::Webhook;
use crate::wire::{Metrics, Output, Prediction, Status};

/// A live prediction. Its id, input and place never change.
#[derive(Debug)]
pub struct Live {
    /// Its name.
    pub id: String,
    /// Its place in the order of acceptance.
    pub seq: u64,
    /// What is to be made.
    pub input: Input,
    /// Whom to tell.
    pub webhook: Option<Webhook>,
    /// When it is given up.
    pub deadline: Option<Time>,
    /// What happens to it.
    pub feed: Arc<Feed>,
    /// Where its picture is sent, if the request said so.
    pub output_file_prefix: Option<String>,
    /// Cancelled when it is asked to stop.
    pub(crate) stopping: CancellationToken,
    pub(crate) stage: watch::Sender<Stage>,
    /// What is logged of it is logged in here.
    pub(crate) span: Span,
    state: Mutex<State>,
}

/// How far a prediction is on its way through the service.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// It is being stored.
    Accepting,
    /// It is stored, and waits or runs.
    Accepted,
    /// It has ended, and that is stored.
    Ended(Arc<Prediction>),
    /// The server stops; the prediction waits in the store for the next one.
    HandedBack,
    /// It could not be stored and never was.
    Refused(String),
}

/// Why a prediction is to stop.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// It was asked for, or the `Cancel-After` of the request has passed.
    Canceled,
    /// It ran longer than any prediction may.
    TooLong(f64),
}

/// Where it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// In the queue, or on its way there.
    Waiting,
    /// On a worker, under the name of a job.
    Running { worker: usize, job: String },
    /// Its end is being stored.
    Ending,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) prediction: Prediction,
    pub(crate) attempts: u32,
    pub(crate) stop: Option<Stop>,
    pub(crate) place: Place,
    /// How many follow it.
    pub(crate) followers: usize,
    /// Whether it stops when the last of them leaves.
    pub(crate) tied: bool,
}

/// How a job ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With a picture, whose data URI or URL this is.
    Succeeded { output: Arc<str>, work: Work },
    /// With an error.
    Failed(String),
    /// Stopped.
    Canceled,
}

impl Live {
    /// The live form of a record, whose newest `history` events are shown to those who come later.
    pub(crate) fn new(record: Record, stage: Stage, history: usize, span: Span) -> Self {
        let Record { prediction, seq, attempts, webhook, output_file_prefix, deadline, file: _ } = record;
        Self {
            id: prediction.id.clone(),
            seq,
            input: prediction.input.clone(),
            webhook,
            deadline,
            feed: Arc::new(Feed::new(history)),
            output_file_prefix,
            stopping: CancellationToken::new(),
            stage: watch::Sender::new(stage),
            span,
            state: Mutex::new(State {
                prediction,
                attempts,
                stop: None,
                place: Place::Waiting,
                followers: 0,
                tied: false,
            }),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The prediction at this moment.
    pub fn snapshot(&self) -> Prediction {
        self.state().prediction.clone()
    }

    /// The record to store at this moment.
    pub(crate) fn record(&self) -> Record {
        let state = self.state();
        let prediction = Prediction { output: None, ..state.prediction.clone() };
        let (webhook, deadline) = (self.webhook.clone(), self.deadline);
        let output_file_prefix = self.output_file_prefix.clone();
        Record {
            prediction,
            seq: self.seq,
            attempts: state.attempts,
            webhook,
            output_file_prefix,
            file: None,
            deadline,
        }
    }

    /// A worker was given it.
    pub(crate) fn begin(&self, worker: usize, job: String, model: Option<&Model>) -> (Time, u32) {
        let now = Time::now();
        let mut state = self.state();
        state.attempts += 1;
        state.place = Place::Running { worker, job };
        let prediction = &mut state.prediction;
        prediction.status = Status::Processing;
        prediction.started_at = Some(now);
        prediction.metrics = Metrics { queue_time: Some(now.since(prediction.created_at)), ..Metrics::default() };
        prediction.model = model.map(|model| model.name.clone());
        prediction.version = model.map(|model| model.version.clone());
        let attempts = state.attempts;
        drop(state);
        if self.feed.is_empty() {
            self.feed.push(Event::Start);
        }
        (now, attempts)
    }

    /// It was taken from its worker and waits again. `why` goes into its logs.
    pub(crate) fn take_back(&self, why: Option<&str>) {
        let mut state = self.state();
        state.place = Place::Waiting;
        let prediction = &mut state.prediction;
        prediction.status = Status::Starting;
        prediction.started_at = None;
        prediction.metrics = Metrics::default();
        drop(state);
        if let Some(why) = why {
            self.log(&format!("the worker was lost ({why}); trying once more"));
        }
    }

    /// Adds a line to the logs.
    pub(crate) fn log(&self, line: &str) {
        let line = format!("{line}\n");
        self.state().prediction.logs.push_str(&line);
        self.feed.push(Event::Log(line.into()));
    }

    /// The worker got on: `fraction` of the work is done, and `step` of `of` steps, after `seconds`.
    pub(crate) fn progress(&self, step: u32, of: u32, seconds: f64, fraction: f64) {
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        let seconds_left = (fraction > 0.0).then(|| seconds * (1.0 - fraction) / fraction);
        let mut state = self.state();
        let metrics = &mut state.prediction.metrics;
        let before = metrics.step.unwrap_or(0);
        metrics.progress = Some(fraction);
        metrics.step = Some(step);
        metrics.steps = Some(of);
        metrics.seconds_left = seconds_left;
        drop(state);
        self.feed.push(Event::Progress { progress: fraction, step, steps: of, seconds_left });
        for step in before.saturating_add(1)..=step.min(of) {
            self.log(&progress::line(step, of, seconds));
        }
    }

    /// Asks it to stop; false if it is ending already. The first reason stays.
    pub(crate) fn ask_to_stop(&self, stop: Stop) -> bool {
        let mut state = self.state();
        if state.place == Place::Ending {
            return false;
        }
        state.stop.get_or_insert(stop);
        drop(state);
        self.stopping.cancel();
        true
    }

    /// Takes it towards its end, once: what it is to be stored as, or `None` if that has happened before.
    pub(crate) fn end(&self, end: End) -> Option<Prediction> {
        let now = Time::now();
        let mut state = self.state();
        if state.place == Place::Ending {
            return None;
        }
        state.place = Place::Ending;
        let end = match (state.stop.clone(), end) {
            (Some(Stop::Canceled), _) => End::Canceled,
            (Some(Stop::TooLong(most)), End::Canceled) => {
                End::Failed(format!("it took longer than the {most} seconds that a prediction may take"))
            }
            (_, end) => end,
        };
        let mut prediction = state.prediction.clone();
        drop(state);
        prediction.completed_at = Some(now);
        let metrics = &mut prediction.metrics;
        metrics.predict_time = Some(prediction.started_at.map_or(0.0, |started| now.since(started)));
        metrics.total_time = Some(now.since(prediction.created_at));
        metrics.queue_position = None;
        metrics.seconds_left = None;
        match end {
            End::Canceled => prediction.status = Status::Canceled,
            End::Failed(error) => {
                prediction.status = Status::Failed;
                prediction.error = Some(error);
            }
            End::Succeeded { output, work } => {
                prediction.status = Status::Succeeded;
                prediction.output = Some(Output::Whole(output));
                metrics.progress = Some(1.0);
                metrics.work = Some(work);
            }
        }
        Some(prediction)
    }

    /// Tells everybody the end, after it was stored.
    pub(crate) fn tell_end(&self, prediction: Prediction) -> Arc<Prediction> {
        self.state().prediction = prediction.clone();
        if let Some(Output::Whole(picture)) = &prediction.output {
            self.feed.push(Event::Output(Arc::clone(picture)));
        }
        if let Some(value) = prediction.metrics.predict_time {
            self.feed.push(Event::Metric { name: "predict_time", value });
        }
        let prediction = Arc::new(prediction);
        self.feed.push(Event::Completed(Arc::clone(&prediction)));
        self.stage.send_replace(Stage::Ended(Arc::clone(&prediction)));
        prediction
    }
}
