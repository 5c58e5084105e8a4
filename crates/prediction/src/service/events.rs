//! What workers report, matched here and nowhere else in the service; and what follows when one of them is lost.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Command, Event};

use super::shared::Shared;
use super::workers::WorkerState;
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

    /// An event of a worker, with the bytes of its frame.
    pub(super) fn on_event(self: &Arc<Self>, worker: usize, event: Event, bytes: Vec<u8>) {
        let mut table = self.table();
        // Loading has one limit in all; every other event shows that the worker is alive.
        if !matches!(event, Event::Loading { .. }) {
            table.workers.slot(worker).touch();
        }
        match event {
            Event::Loading { model } => table.model = Some(model),
            Event::Ready { model, load_seconds, jobs, peak_memory_bytes } => {
                tracing::info!(worker, load_seconds, jobs, device = %model.device, dtype = %model.dtype, "worker ready");
                record_memory(worker, peak_memory_bytes);
                table.model = Some(model);
                table.setup.succeed();
                table.workers.slot(worker).ready(jobs);
                self.wake();
            }
            Event::LoadFailed { error } => {
                tracing::error!(worker, error = %shown(&error), "worker cannot load");
                table.setup.fail(&error);
                table.workers.slot(worker).state = WorkerState::LoadFailed(error);
            }
            Event::Batch { stage, windows, limit, seconds } => {
                let stage = stage.name();
                let fill = f64::from(windows) / f64::from(limit.max(1));
                metrics::counter!("syncdiffusion_windows_total", "stage" => stage).increment(u64::from(windows));
                metrics::counter!("syncdiffusion_batches_total", "stage" => stage).increment(1);
                metrics::histogram!("syncdiffusion_batch_fill_ratio", "stage" => stage).record(fill.min(1.0));
                metrics::histogram!("syncdiffusion_batch_seconds", "stage" => stage).record(seconds);
            }
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
            Event::Done { job, width, height, seconds, work, peak_memory_bytes } => {
                record_memory(worker, peak_memory_bytes);
                let size =
                    table.workers.slot(worker).job(&job).map(|active| (active.input().width, active.input().height));
                if let Some((wanted_width, wanted_height)) = size
                    && ((width, height) != (wanted_width, wanted_height)
                        || bytes.len() as u64 != picture_bytes(width, height))
                {
                    drop(table);
                    let error = format!(
                        "the worker sent a picture of {width} x {height} pixels, and {} bytes that are kept of it, instead \
                         of one of {wanted_width} x {wanted_height}",
                        bytes.len()
                    );
                    self.on_end(worker, &job, End::Failed(error));
                    return;
                }
                let Some((active, beside)) = table.workers.slot(worker).complete(&job, true) else { return };
                active.computed();
                let units = table.units(&active);
                table.rate.learn(units, seconds, beside);
                drop(table);
                self.wake();
                self.encode(active, bytes, (width, height), work);
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
    }

    /// A job has ended without a picture; the next one gets its place.
    fn on_end(self: &Arc<Self>, worker: usize, job: &str, end: End) {
        let completed = self.table().workers.slot(worker).complete(job, false);
        let Some((active, _)) = completed else { return };
        self.wake();
        self.finish(&active, end, None);
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
        for active in exit.held {
            let attempts = active.attempts();
            if attempts >= MAX_ATTEMPTS {
                let error = format!("the worker was lost {attempts} times while it made this prediction: {}", exit.why);
                self.finish(&active, End::Failed(error), None);
            } else if let Some(claim) = active.release(Some(&exit.why)) {
                self.give_back(active, claim, true);
            } else {
                self.finish(&active, End::Canceled, None);
            }
        }
        if gone {
            self.on_gone();
        }
        exit.restart_after.filter(|_| !closing)
    }
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

fn record_memory(worker: usize, peak_memory_bytes: u64) {
    let worker = worker.to_string();
    metrics::gauge!("syncdiffusion_worker_peak_memory_bytes", "worker" => worker).set(peak_memory_bytes as f64);
}
