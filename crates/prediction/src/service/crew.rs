//! The workers of a service and what they hold: gives out jobs and takes in what workers say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{Command, Event, Work};
use tracing::Instrument as _;

use super::intake::ATTEMPTS;
use super::{Kept, Shared, Table};
use crate::cost;
use crate::live::{End, Live, Stop};
use crate::output::{self, Metadata};
use crate::time::Time;
use crate::upload::{Target, Way};
use crate::worker::Worker;

/// The place of one worker, kept while processes come and go.
#[derive(Debug, Default)]
pub(super) struct Post {
    /// What can be expected of it.
    pub(super) duty: Duty,
    /// Its process.
    worker: Option<Worker>,
    /// How many jobs it advances at once.
    jobs: usize,
    /// What it holds, by job.
    running: HashMap<String, Arc<Live>>,
    /// It holds a prediction that lost a worker before, and gets no other beside it.
    alone: bool,
    /// When it last said something or was given something.
    heard: Option<Instant>,
}

/// What can be expected of a worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Duty {
    /// It loads for the first time.
    #[default]
    Loading,
    /// It takes jobs.
    Ready,
    /// It was lost, and another is being started.
    Lost(String),
    /// It could not load, and no other is started.
    LoadFailed(String),
    /// It was lost for good.
    Dead(String),
}

impl Post {
    /// What it holds.
    pub(super) fn running(&self) -> impl Iterator<Item = &Arc<Live>> {
        self.running.values()
    }

    /// Whether it takes jobs.
    pub(super) fn is_ready(&self) -> bool {
        self.duty == Duty::Ready
    }

    /// Whether it takes jobs, or will again.
    pub(super) fn takes_work(&self) -> bool {
        matches!(self.duty, Duty::Ready | Duty::Lost(_))
    }

    /// How many more jobs it takes.
    pub(super) fn free(&self) -> usize {
        if self.is_ready() && !self.alone { self.jobs.saturating_sub(self.running.len()) } else { 0 }
    }

    /// Sends a command to its process, if there is one.
    pub(super) fn send(&mut self, command: Command) {
        if let Some(worker) = &self.worker {
            worker.send(command);
        }
    }

    /// Removes a job that has ended.
    fn take(&mut self, job: &str) -> Option<Arc<Live>> {
        let live = self.running.remove(job);
        self.alone &= !self.running.is_empty();
        live
    }

    /// Ends its process and gives back what it held.
    pub(super) fn dismiss(&mut self) -> Vec<Arc<Live>> {
        self.worker = None;
        self.alone = false;
        self.running.drain().map(|(_, live)| live).collect()
    }
}

impl Shared {
    /// Gives waiting predictions to workers with room, strictly in order.
    pub(super) fn dispatch(self: &Arc<Self>, table: &mut Table) {
        while !table.closing {
            let Some((&seq, live)) = table.queue.first_key_value() else { return };
            let suspect = live.state().attempts > 0;
            let takes = |post: &&Post| post.free() > 0 && (!suspect || post.running.is_empty());
            let Some(worker) = (0..table.crew.len())
                .filter(|&index| takes(&&table.crew[index]))
                .min_by_key(|&index| table.crew[index].running.len())
            else {
                return;
            };
            let Some(live) = table.queue.remove(&seq) else { return };
            table.last_job += 1;
            let job = table.last_job.to_string();
            let (started_at, attempts) = live.begin(worker, job.clone(), table.model.as_ref());
            let post = &mut table.crew[worker];
            post.alone = suspect;
            post.heard = Some(Instant::now());
            post.running.insert(job.clone(), Arc::clone(&live));
            post.send(Command::Run { job, input: live.input.clone() });
            live.span.in_scope(|| tracing::info!(worker, attempts, "prediction started"));
            let waited = live.state().prediction.metrics.queue_time;
            metrics::histogram!("syncdiffusion_queue_wait_seconds").record(waited.unwrap_or_default());
            self.note(&live, Some(started_at), attempts);
            self.limit(&live, attempts);
        }
    }

    /// Notes in the store where a prediction is; a note that is lost costs at most an attempt.
    fn note(&self, live: &Live, started_at: Option<Time>, attempts: u32) {
        let store = Arc::clone(&self.store);
        let (id, seq) = (live.id.clone(), live.seq);
        let note = async move {
            if let Err(error) = store.note(&id, seq, started_at, attempts).await {
                tracing::error!(%error, "the start of a prediction could not be stored");
            }
        };
        self.tasks.spawn(note.instrument(live.span.clone()));
    }

    /// Stops a prediction that runs for longer than any may.
    fn limit(self: &Arc<Self>, live: &Arc<Live>, attempt: u32) {
        let Some(most) = self.options.max_predict else { return };
        let (shared, live) = (Arc::downgrade(self), Arc::downgrade(live));
        tokio::spawn(async move {
            tokio::time::sleep(most).await;
            let (Some(shared), Some(live)) = (shared.upgrade(), live.upgrade()) else { return };
            let same = live.state().attempts == attempt;
            if same {
                shared.stop(&live, Stop::TooLong(most.as_secs_f64()));
            }
        });
    }

    /// A worker process was started.
    pub(crate) fn enlist(&self, index: usize, worker: Worker) {
        let mut table = self.table();
        let post = &mut table.crew[index];
        post.worker = Some(worker);
        post.heard = Some(Instant::now());
    }

    /// How long the supervisor waits for a word before it gives the process up; `None` for ever.
    pub(crate) fn patience(&self, index: usize, ready: bool) -> Option<Duration> {
        let table = self.table();
        let post = &table.crew[index];
        let limit = match ready {
            false => self.options.load,
            true if post.running.is_empty() => return None,
            true => self.options.hang,
        };
        Some(limit.saturating_sub(post.heard.map(|at| at.elapsed()).unwrap_or_default()))
    }

    /// Whether the server is about to stop.
    pub(crate) fn is_closing(&self) -> bool {
        self.table().closing
    }

    /// A line of a worker's log, kept while it loads.
    pub(crate) fn line(&self, index: usize, line: &str) {
        log(index, line);
        let mut table = self.table();
        if table.crew[index].duty == Duty::Loading {
            table.setup.log(line);
        }
    }

    /// Takes in an event of a worker.
    pub(crate) fn hear(self: &Arc<Self>, index: usize, event: Event, bytes: Vec<u8>) {
        count(index, &event);
        let mut table = self.table();
        // Loading has one limit in all; every other event shows that the worker is alive.
        if !matches!(event, Event::Loading { .. }) {
            table.crew[index].heard = Some(Instant::now());
        }
        match event {
            Event::Loading { model } => table.model = Some(model),
            Event::Ready { model, load_seconds, jobs, .. } => {
                tracing::info!(worker = index, load_seconds, jobs, device = %model.device, dtype = %model.dtype, "worker ready");
                table.model = Some(model);
                table.setup.succeed();
                let post = &mut table.crew[index];
                post.duty = Duty::Ready;
                post.jobs = jobs.max(1) as usize;
                self.dispatch(&mut table);
            }
            Event::LoadFailed { error } => {
                tracing::error!(worker = index, %error, "worker cannot load");
                table.setup.fail(&error);
                table.crew[index].duty = Duty::LoadFailed(error);
            }
            Event::Started { .. } | Event::Batch { .. } => {}
            Event::Progress { job, step, of, seconds, fraction } => {
                if let Some(live) = table.crew[index].running.get(&job).cloned() {
                    drop(table);
                    live.progress(step, of, seconds, fraction);
                }
            }
            Event::Log { job, line } => {
                if let Some(live) = table.crew[index].running.get(&job).cloned() {
                    drop(table);
                    live.log(&line);
                }
            }
            Event::Done { job, width, height, seconds, work, .. } => {
                let Some(live) = table.crew[index].take(&job) else { return };
                let beside = table.crew[index].running.len();
                let units = cost::units(&live.input, table.geometry());
                table.rate.learn(units, seconds, beside);
                self.dispatch(&mut table);
                drop(table);
                self.picture(live, bytes, (width, height), work);
            }
            Event::Failed { job, error, fatal } => {
                if fatal {
                    // The process ends now, and what it held is dealt with then.
                    tracing::error!(worker = index, %error, "worker has a fatal error");
                    return;
                }
                self.settle(table, index, &job, End::Failed(error));
            }
            Event::Canceled { job } => self.settle(table, index, &job, End::Canceled),
            Event::Malformed { error } => {
                tracing::error!(worker = index, %error, "worker did not understand a command");
            }
        }
    }

    /// Ends a job without a picture and gives its place to the next.
    fn settle(self: &Arc<Self>, mut table: std::sync::MutexGuard<'_, Table>, index: usize, job: &str, end: End) {
        let Some(live) = table.crew[index].take(job) else { return };
        self.dispatch(&mut table);
        drop(table);
        self.conclude(live, end, None);
    }

    /// Encodes a picture and ends its prediction with it.
    fn picture(self: &Arc<Self>, live: Arc<Live>, rgb: Vec<u8>, (width, height): (u32, u32), work: Work) {
        let shared = Arc::clone(self);
        let model = self.table().model.clone();
        let tasks = self.tasks.clone();
        tasks.spawn_blocking(move || {
            let metadata = shared.options.metadata.then(|| Metadata::new(&live.input, model.as_ref()));
            match output::picture(&rgb, width, height, metadata.as_ref()) {
                Ok(png) => shared.deliver(live, png.into(), work),
                Err(error) => {
                    let error = format!("the picture cannot be encoded: {error}");
                    shared.conclude(live, End::Failed(error), None);
                }
            }
        });
    }

    /// Gives out a picture: as a data URI, as a URL of this server, or as the URL where it was sent to.
    fn deliver(self: &Arc<Self>, live: Arc<Live>, png: Arc<[u8]>, work: Work) {
        match self.uploader.way(live.output_file_prefix.as_deref()) {
            Way::DataUri => {
                let output = output::data_uri(&png);
                self.conclude(live, End::Succeeded { output, work }, Some(Kept { png, file: None }));
            }
            Way::File => match output::name() {
                Ok(name) => {
                    let output = live.snapshot().urls.file(&name).into();
                    self.conclude(live, End::Succeeded { output, work }, Some(Kept { png, file: Some(name) }));
                }
                Err(error) => self.conclude(live, End::Failed(error.to_string()), Some(Kept { png, file: None })),
            },
            Way::Send(target) => self.send(live, png, work, target),
        }
    }

    /// Sends a picture away; one that could not be sent is kept all the same.
    fn send(self: &Arc<Self>, live: Arc<Live>, png: Arc<[u8]>, work: Work, target: Target) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let sent = live.stopping.run_until_cancelled(shared.uploader.send(&target, &live.id, &png)).await;
            let kept = Kept { png, file: None };
            match sent {
                Some(Ok(output)) => shared.conclude(live, End::Succeeded { output, work }, Some(kept)),
                Some(Err(why)) => {
                    live.log(&format!("the picture is kept: GET {}", live.snapshot().urls.picture()));
                    shared.conclude(live, End::Failed(why), Some(kept));
                }
                None => shared.conclude(live, End::Canceled, None),
            }
        });
    }

    /// A worker process has ended: what it held goes back to the queue, once.
    pub(crate) fn lost(self: &Arc<Self>, index: usize, duty: Duty, why: &str) {
        let mut table = self.table();
        let post = &mut table.crew[index];
        let told = matches!(post.duty, Duty::LoadFailed(_));
        post.duty = duty.clone();
        let held = post.dismiss();
        if let (Duty::LoadFailed(error), false) = (duty, told) {
            table.setup.fail(&error);
        }
        if table.closing {
            return;
        }
        let mut ended = Vec::new();
        for live in held {
            let (attempts, stop) = {
                let state = live.state();
                (state.attempts, state.stop.clone())
            };
            if stop.is_some() {
                ended.push((live, End::Canceled));
            } else if attempts >= ATTEMPTS {
                let error = format!("the worker was lost {attempts} times while it made this prediction: {why}");
                ended.push((live, End::Failed(error)));
            } else {
                live.take_back(Some(why));
                self.note(&live, None, attempts);
                table.queue.insert(live.seq, live);
            }
        }
        self.dispatch(&mut table);
        let dead =
            !table.crew.iter().any(Post::takes_work) && !table.crew.iter().any(|post| post.duty == Duty::Loading);
        drop(table);
        for (live, end) in ended {
            self.conclude(live, end, None);
        }
        if dead {
            tracing::error!("no worker is left; what waits stays in the store until the server is started again");
        }
    }

    /// Whether a worker holds a job.
    pub(crate) fn holds_work(&self, index: usize) -> bool {
        !self.table().crew[index].running.is_empty()
    }

    /// What is known of a worker's duty.
    pub(crate) fn duty(&self, index: usize) -> Duty {
        self.table().crew[index].duty.clone()
    }
}

/// Passes on a line of a worker's log, at the level that it names.
fn log(worker: usize, line: &str) {
    let line = line.trim_start();
    let (level, words) = line.split_once(' ').unwrap_or(("", line));
    match level {
        "ERROR" => tracing::error!(target: "worker", worker, "{words}"),
        "WARN" => tracing::warn!(target: "worker", worker, "{words}"),
        "INFO" => tracing::info!(target: "worker", worker, "{words}"),
        "DEBUG" => tracing::debug!(target: "worker", worker, "{words}"),
        "TRACE" => tracing::trace!(target: "worker", worker, "{words}"),
        _ => tracing::info!(target: "worker", worker, "{line}"),
    }
}

/// Records what an event says in figures.
fn count(worker: usize, event: &Event) {
    match event {
        Event::Batch { stage, windows, limit, seconds } => {
            let stage = stage.name();
            let fill = f64::from(*windows) / f64::from((*limit).max(1));
            metrics::counter!("syncdiffusion_windows_total", "stage" => stage).increment(u64::from(*windows));
            metrics::counter!("syncdiffusion_batches_total", "stage" => stage).increment(1);
            metrics::histogram!("syncdiffusion_batch_fill_ratio", "stage" => stage).record(fill.min(1.0));
            metrics::histogram!("syncdiffusion_batch_seconds", "stage" => stage).record(*seconds);
        }
        Event::Ready { peak_memory_bytes, .. } | Event::Done { peak_memory_bytes, .. } => {
            let worker = worker.to_string();
            metrics::gauge!("syncdiffusion_worker_peak_memory_bytes", "worker" => worker)
                .set(*peak_memory_bytes as f64);
        }
        _ => {}
    }
}
