//! What workers report, matched here and nowhere else in the service; and what follows when one of them is lost.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Command, Event, Model, Stage};
use tokio::task::JoinHandle;

use super::shared::{Shared, Table};
use super::workers::WorkerState;
use crate::active::ActivePrediction;
use crate::lifecycle::End;
use crate::output;
use crate::preview::Preview;
use crate::shown::{shown, shown_up_to};
use crate::store::MAX_ATTEMPTS;
use crate::worker::{Worker, picture_bytes};

impl Shared {
    /// A worker process was started.
    pub(super) fn on_start(&self, worker: usize, process: Worker) {
        self.table().workers.slot(worker).attach(process);
    }

    /// How much longer a worker may be silent; `None` if it may be for ever.
    pub(super) fn patience(&self, worker: usize) -> Option<Duration> {
        self.table().workers.slot(worker).patience(self.options.load, self.options.hang)
    }

    /// A worker was silent for too long: why its process is ended.
    pub(super) fn on_silence(&self, worker: usize) -> String {
        self.table().workers.slot(worker).silence().to_owned()
    }

    /// A line of a worker's log, shown by the health check while it loads.
    pub(super) fn on_line(&self, worker: usize, line: &str) {
        log(worker, line);
        let mut table = self.table();
        if table.workers.slot(worker).state == WorkerState::Loading {
            table.setup.log(line);
        }
    }

    /// An event of a worker, with the bytes of its frame. Returns what is to be waited for before the next one.
    pub(super) fn on_event(self: &Arc<Self>, worker: usize, event: Event, bytes: Vec<u8>) -> Option<JoinHandle<()>> {
        let mut table = self.table();
        // Loading has one limit in all; every other event shows that the worker is alive.
        if !matches!(event, Event::Loading { .. }) {
            table.workers.slot(worker).touch();
        }
        match event {
            Event::Loading { model } => table.model = Some(model),
            Event::Ready { model, .. } if self.is_other_dtype(&model) => self.dismiss(&mut table, worker, &model),
            Event::Ready { model, load_seconds, jobs, peak_memory_bytes, unusable, no_encoder } => {
                tracing::info!(worker, load_seconds, jobs, device = %model.device, dtype = %model.dtype, "worker ready");
                record_memory(worker, peak_memory_bytes);
                table.model = Some(model);
                table.rule_out(unusable, no_encoder);
                table.setup.succeed();
                table.workers.slot(worker).ready(jobs);
                self.wake();
            }
            Event::LoadFailed { error } => {
                tracing::error!(worker, error = %shown(&error), "worker cannot load");
                table.setup.fail(&error);
                table.workers.slot(worker).state = WorkerState::LoadFailed(error);
            }
            Event::Batch { stage, windows, limit, seconds } => record_batch(stage, (windows, limit), seconds),
            Event::Progress { job, step, of, seconds, fraction } => {
                let active = table.workers.slot(worker).job(&job).cloned();
                if active.as_ref().is_some_and(|active| active.previews.is_due(step, of)) {
                    table.workers.slot(worker).send(Command::Preview { job });
                }
                drop(table);
                if let Some(active) = active {
                    active.progress(step, of, seconds, fraction);
                }
            }
            Event::Preview { job, step, width, height } => {
                let active = table.workers.slot(worker).job(&job).cloned();
                drop(table);
                if let Some(active) = active.filter(|_| bytes.len() <= MAX_PREVIEW) {
                    self.tasks.spawn_blocking(move || match output::picture(&bytes, width, height, None) {
                        Ok(png) => {
                            active.previews.show(Preview { step, width, height, image: output::data_uri(&png) });
                        }
                        Err(error) => tracing::warn!(worker, %error, "a preview cannot be encoded"),
                    });
                }
            }
            Event::Log { job, line } => {
                let active = table.workers.slot(worker).job(&job).cloned();
                drop(table);
                if let Some(active) = active {
                    active.log_of_worker(&line);
                }
            }
            Event::Picture { job, n, width, height } => {
                drop(table);
                return self.on_picture(worker, job, n, (width, height), bytes);
            }
            Event::Done { job, width, height, seconds, work, peak_memory_bytes, mut figures } => {
                record_memory(worker, peak_memory_bytes);
                let active = table.workers.slot(worker).job(&job).cloned()?;
                let alone = active.input().num_outputs == 1;
                if let Some(error) = misfit(&active, (width, height), bytes.len() as u64, alone.into()) {
                    drop(table);
                    self.on_end(worker, &job, End::Failed(error));
                    return None;
                }
                let (active, beside) = table.workers.slot(worker).complete(&job, true)?;
                active.computed();
                if active.input().evaluate {
                    figures.truncate(active.input().num_outputs as usize);
                    active.evaluated(figures);
                }
                let units = table.units(&active);
                table.rate.learn(units, seconds, beside);
                drop(table);
                self.wake();
                if alone {
                    self.encode(active, bytes, (width, height), work);
                } else {
                    self.deliver_all(active, work);
                }
            }
            Event::Failed { error, fatal: true, .. } => {
                // The process ends now, and what it holds is dealt with then.
                tracing::error!(worker, error = %shown(&error), "worker has a fatal error");
                table.workers.slot(worker).fatal(&error);
            }
            Event::Failed { job, error, fatal: false } => {
                drop(table);
                self.on_end(worker, &job, End::Failed(error));
            }
            Event::Canceled { job } => {
                drop(table);
                self.on_end(worker, &job, End::Canceled);
            }
            Event::Evaluator { .. } | Event::Evaluated { .. } => {
                tracing::error!(worker, "worker answers to `evaluate`, which nobody has asked of it");
            }
            Event::Malformed { error } => {
                tracing::error!(worker, error = %shown(&error), "worker did not understand a command");
            }
        }
        None
    }

    /// Whether a worker may not be used, because a fleet demands another dtype.
    fn is_other_dtype(&self, model: &Model) -> bool {
        self.options.dtype.as_ref().is_some_and(|wanted| *wanted != model.dtype)
    }

    /// Does without a worker, because it computes in another dtype than the fleet.
    fn dismiss(&self, table: &mut Table, worker: usize, model: &Model) {
        let (dtype, wanted) = (&model.dtype, self.options.dtype.as_deref().unwrap_or_default());
        let error = format!(
            "the worker computes in {dtype}, and this fleet in {wanted}; set `--dtype {wanted}`, or use a device that \
             has it"
        );
        tracing::error!(worker, error, "worker cannot be used");
        table.setup.fail(&error);
        let slot = table.workers.slot(worker);
        slot.state = WorkerState::LoadFailed(error);
        slot.send(Command::Shutdown);
    }

    /// One of several pictures is drawn. It is to be encoded before the next event.
    fn on_picture(
        self: &Arc<Self>,
        worker: usize,
        job: String,
        n: u32,
        size: (u32, u32),
        rgb: Vec<u8>,
    ) -> Option<JoinHandle<()>> {
        let active = self.table().workers.slot(worker).job(&job).cloned()?;
        let of = active.input().num_outputs;
        let wrong = if n >= of || of == 1 {
            Some(format!("the worker sent picture {n}, counted from 0, of {of}"))
        } else {
            misfit(&active, size, rgb.len() as u64, 1)
        };
        match wrong {
            None => Some(self.encode_one((worker, job), active, n, rgb, size)),
            Some(error) => {
                self.break_off(worker, &job, error);
                None
            }
        }
    }

    /// A job cannot end well any more, although its worker goes on: the worker is told, and its place is free.
    pub(super) fn break_off(self: &Arc<Self>, worker: usize, job: &str, error: String) {
        self.table().workers.slot(worker).send(Command::Cancel { job: job.to_owned() });
        self.on_end(worker, job, End::Failed(error));
    }

    /// A job has ended without a picture; the next one gets its place.
    fn on_end(self: &Arc<Self>, worker: usize, job: &str, end: End) {
        let completed = self.table().workers.slot(worker).complete(job, false);
        let Some((active, _)) = completed else { return };
        self.wake();
        self.finish(&active, end, Vec::new());
    }

    /// A worker process has ended, or could not be started, and `how`: what it held goes back to the queue, once.
    /// Returns how long to wait before another is started; `None` for no other.
    pub(super) fn on_exit(self: &Arc<Self>, worker: usize, how: String) -> Option<Duration> {
        let mut table = self.table();
        let exit = table.workers.slot(worker).exited(how);
        if let Some(error) = &exit.load_error {
            table.setup.fail(error);
        }
        let closing = table.closing;
        if !closing {
            tracing::error!(worker, why = %shown(&exit.why), falls = exit.falls, "worker lost");
        }
        let gone = !closing && table.workers.are_gone();
        drop(table);
        for active in exit.unsent {
            self.let_go(active, None);
        }
        for active in exit.held {
            let attempts = active.attempts();
            if attempts >= MAX_ATTEMPTS {
                let error = format!("the worker was lost {attempts} times while it made this prediction: {}", exit.why);
                self.finish(&active, End::Failed(error), Vec::new());
            } else {
                self.let_go(active, Some(&exit.why));
            }
        }
        if gone {
            self.on_gone();
        }
        exit.restart_after.filter(|_| !closing)
    }
}

/// What is wrong with the size of a picture that a worker sent, or with the bytes of one or several, if anything is.
fn misfit(active: &ActivePrediction, (width, height): (u32, u32), bytes: u64, pictures: u64) -> Option<String> {
    let wanted = (active.input().width, active.input().height);
    ((width, height) != wanted || bytes != pictures * picture_bytes(width, height)).then(|| {
        format!(
            "the worker sent a picture of {width} x {height} pixels, and {bytes} bytes that are kept of it, instead of \
             one of {} x {}",
            wanted.0, wanted.1
        )
    })
}

/// The largest preview in bytes: a pixel for each latent of 3072x3072 takes 432 KiB.
const MAX_PREVIEW: usize = 4 << 20;

/// How many characters of a line of a worker are logged.
const MAX_LOGGED: usize = 4096;

/// Passes on a line of a worker's log, at the level that it names.
fn log(worker: usize, line: &str) {
    let line = shown_up_to(line.trim_start(), MAX_LOGGED).to_string();
    let (level, words) = line.split_once(' ').unwrap_or(("", &line));
    match level {
        "ERROR" => tracing::error!(target: "worker", worker, "{words}"),
        "WARN" => tracing::warn!(target: "worker", worker, "{words}"),
        "INFO" => tracing::info!(target: "worker", worker, "{words}"),
        "DEBUG" => tracing::debug!(target: "worker", worker, "{words}"),
        "TRACE" => tracing::trace!(target: "worker", worker, "{words}"),
        _ => tracing::info!(target: "worker", worker, "{line}"),
    }
}

fn record_batch(stage: Stage, (windows, limit): (u32, u32), seconds: f64) {
    let stage = stage.name();
    let fill = f64::from(windows) / f64::from(limit.max(1));
    metrics::counter!("syncdiffusion_windows_total", "stage" => stage).increment(u64::from(windows));
    metrics::counter!("syncdiffusion_batches_total", "stage" => stage).increment(1);
    metrics::histogram!("syncdiffusion_batch_fill_ratio", "stage" => stage).record(fill.min(1.0));
    metrics::histogram!("syncdiffusion_batch_seconds", "stage" => stage).record(seconds);
}

fn record_memory(worker: usize, peak_memory_bytes: u64) {
    let worker = worker.to_string();
    metrics::gauge!("syncdiffusion_worker_peak_memory_bytes", "worker" => worker).set(peak_memory_bytes as f64);
}
