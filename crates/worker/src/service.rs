//! The jobs of a worker: handles commands, advances all jobs batch by batch, and reports what happens.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};
use std::time::Instant;

use panorama::{Engine, Limits, Panorama, Picture, Preview, Stage, Task, range};
use protocol::{Command, Event, Input};
use sd2::tokenizer::Overlong;

use crate::backoff;
use crate::commands::Message;
use crate::events::Events;
use crate::failure::{catch, is_sticky};
use crate::memory;
use crate::schedule::{Batch, Flow, Schedule};
use crate::settings::settings;

/// Characters of a text that a line of a log quotes.
const MAX_QUOTE: usize = 60;

/// The jobs, and what computes them.
pub(crate) struct Service<'a> {
    engine: Engine,
    /// How much fits in a batch; lowered when a batch did not.
    limits: Limits,
    events: &'a Events,
    schedule: Schedule,
    preview: Preview,
    /// Jobs that are advanced, at most `capacity`.
    jobs: Vec<Job>,
    /// Jobs that wait for one of those to end.
    queue: VecDeque<(String, Input)>,
    capacity: usize,
    /// No more jobs are accepted; when the ones it has are done, so is the worker.
    finishing: bool,
}

struct Job {
    name: String,
    panorama: Panorama,
    started: Instant,
    deficit: u64,
}

impl Flow for Job {
    type Task = Task;

    fn stage(&self) -> Option<Stage> {
        self.panorama.stage()
    }

    fn branches(&self) -> usize {
        self.panorama.branches()
    }

    fn windows(&self) -> usize {
        self.panorama.windows()
    }

    fn price(&self, stage: Stage) -> u64 {
        self.panorama.price(stage)
    }

    fn take(&mut self, limit: usize) -> Vec<Task> {
        self.panorama.take(limit)
    }

    fn deficit(&mut self) -> &mut u64 {
        &mut self.deficit
    }
}

impl<'a> Service<'a> {
    pub(crate) fn new(engine: Engine, limits: Limits, events: &'a Events, preview: Preview, capacity: usize) -> Self {
        Self {
            engine,
            limits,
            events,
            schedule: Schedule::default(),
            preview,
            jobs: Vec::new(),
            queue: VecDeque::new(),
            capacity,
            finishing: false,
        }
    }

    /// Serves until stdin ends, or until a shutdown and the end of the jobs that it has.
    ///
    /// # Errors
    /// If the device cannot recover; the failure of its jobs was reported.
    pub(crate) fn serve(mut self, commands: &Receiver<Message>) -> anyhow::Result<()> {
        loop {
            let idle = self.jobs.is_empty() && self.queue.is_empty();
            if idle && self.finishing {
                return Ok(());
            }
            if idle {
                match commands.recv() {
                    Ok(message) => self.handle(message),
                    Err(RecvError) => return Ok(()),
                }
            }
            loop {
                match commands.try_recv() {
                    Ok(message) => self.handle(message),
                    Err(TryRecvError::Empty) => break,
                    // No server is there to read the results.
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.start_queued();
            self.run_batch()?;
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Command(Command::Run { job, input }, _) => {
                let known = self.jobs.iter().any(|other| other.name == job)
                    || self.queue.iter().any(|(other, _)| *other == job);
                if known {
                    self.events.send(&Event::Malformed { error: format!("the worker already has a job `{job}`") });
                } else if self.finishing {
                    self.fail(job, "the worker is shutting down".to_owned(), false);
                } else {
                    self.queue.push_back((job, input));
                }
            }
            Message::Command(Command::Cancel { job }, _) => {
                let before = self.jobs.len() + self.queue.len();
                self.jobs.retain(|other| other.name != job);
                self.queue.retain(|(other, _)| *other != job);
                if self.jobs.len() + self.queue.len() < before {
                    self.events.send(&Event::Canceled { job });
                }
            }
            Message::Command(Command::Preview { job }, _) => self.show(&job),
            Message::Command(Command::Evaluate { job, .. }, _) => {
                self.fail(job, "this worker draws; one that is started with `evaluate` evaluates".to_owned(), false);
            }
            Message::Command(Command::Shutdown, _) => self.finishing = true,
            Message::Malformed(error) => {
                tracing::warn!("malformed command: {error}");
                self.events.send(&Event::Malformed { error });
            }
        }
    }

    /// Begins queued jobs up to the capacity.
    fn start_queued(&mut self) {
        while self.jobs.len() < self.capacity {
            let Some((name, input)) = self.queue.pop_front() else { return };
            let started = Instant::now();
            for line in self.notes(&input) {
                self.events.send(&Event::Log { job: name.clone(), line });
            }
            match catch(|| self.engine.begin(&settings(input))) {
                Ok(Ok(panorama)) => self.jobs.push(Job { name, panorama, started, deficit: 0 }),
                Ok(Err(invalid)) => self.fail(name, invalid.to_string(), false),
                Err(error) => self.fail(name, error, false),
            }
        }
    }

    /// What whoever reads the log of a job should know of its texts.
    fn notes(&self, input: &Input) -> Vec<String> {
        let tokenizer = &self.engine.model().tokenizer;
        let texts = [("prompt", &input.prompt), ("negative_prompt", &input.negative_prompt)];
        let overlong = texts.into_iter().filter_map(|(name, text)| Some((name, tokenizer.overlong(text)?)));
        let long = overlong.map(|(name, Overlong { tokens, read, rest })| {
            let begin: String = rest.chars().take(MAX_QUOTE).collect();
            let more = if begin.len() < rest.len() { "..." } else { "" };
            format!(
                "`{name}` has {tokens} tokens, and the model reads {read}; what is left out begins with \"{begin}{more}\""
            )
        });
        let model = self.engine.model().notes.iter().filter(|note| note.contains("fit nothing")).cloned();
        long.chain(model).collect()
    }

    /// Computes one batch.
    fn run_batch(&mut self) -> anyhow::Result<()> {
        let Some(Batch { stage, owners, tasks, .. }) = self.schedule.next(&mut self.jobs, self.limits) else {
            return Ok(());
        };
        let (windows, begun) = (tasks.len() as u32, Instant::now());
        let engine = &self.engine;
        let outcomes = backoff::in_parts(&mut self.limits, stage, &tasks, |limits, tasks| {
            catch(|| engine.compute(tasks, limits.checkpointing))
        });
        let seconds = begun.elapsed().as_secs_f64();
        let mut ended = Vec::new();
        match outcomes {
            Ok(outcomes) => {
                let limit = self.limits.of(stage) as u32;
                self.events.send(&Event::Batch { stage: stage_of_event(stage), windows, limit, seconds });
                for (&owner, outcome) in owners.iter().zip(outcomes) {
                    if ended.contains(&owner) {
                        continue;
                    }
                    if !outcome.is_finite() {
                        let job = &self.jobs[owner];
                        let why = range::explain(self.engine.model(), "UNet");
                        self.fail(job.name.clone(), at_step(&job.panorama, &why), false);
                        ended.push(owner);
                        continue;
                    }
                    if let Some(picture) = self.jobs[owner].panorama.put(outcome) {
                        self.finish(owner, &picture);
                        let latents = self.jobs[owner].panorama.latents();
                        if let Err(error) = catch(|| self.preview.learn(latents, &picture)) {
                            tracing::warn!("nothing is learned for previews: {error}");
                        }
                        ended.push(owner);
                    }
                }
                let mut touched = owners;
                touched.dedup();
                for owner in touched.into_iter().filter(|owner| !ended.contains(owner)) {
                    self.report_progress(owner);
                }
            }
            Err(error) => {
                let fatal = is_sticky(&error);
                ended = if fatal { (0..self.jobs.len()).collect() } else { owners };
                ended.dedup();
                for &owner in &ended {
                    let job = &self.jobs[owner];
                    let error = if fatal { error.clone() } else { at_step(&job.panorama, &error) };
                    self.fail(job.name.clone(), error, fatal);
                }
                if fatal {
                    anyhow::bail!("the device cannot recover: {error}");
                }
            }
        }
        let mut index = 0;
        self.jobs.retain(|_| {
            index += 1;
            !ended.contains(&(index - 1))
        });
        Ok(())
    }

    /// Sends a preview of a job, if there is anything to show.
    fn show(&self, job: &str) {
        let Some(Job { panorama, .. }) = self.jobs.iter().find(|other| other.name == job) else { return };
        match catch(|| self.preview.of(panorama.latents())) {
            Ok(Some(Picture { width, height, rgb })) => {
                let step = panorama.progress().step;
                self.events.send_with(&Event::Preview { job: job.to_owned(), step, width, height }, &rgb);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(job, "no preview: {error}"),
        }
    }

    fn report_progress(&self, job: usize) {
        let Job { name, panorama, started, .. } = &self.jobs[job];
        let progress = panorama.progress();
        self.events.send(&Event::Progress {
            job: name.clone(),
            step: progress.step,
            of: progress.of,
            seconds: started.elapsed().as_secs_f64(),
            fraction: progress.fraction,
        });
    }

    fn finish(&self, job: usize, picture: &Picture) {
        let Job { name, panorama, started, .. } = &self.jobs[job];
        let work = panorama.work();
        let done = Event::Done {
            job: name.clone(),
            width: picture.width,
            height: picture.height,
            seconds: started.elapsed().as_secs_f64(),
            work: protocol::Work {
                unet_forwards: work.unet_forwards,
                unet_backwards: work.unet_backwards,
                window_decodes: work.window_decodes,
                window_decode_backwards: work.window_decode_backwards,
                perceptual_forwards: work.perceptual_forwards,
                perceptual_backwards: work.perceptual_backwards,
                text_encodes: work.text_encodes,
            },
            peak_memory_bytes: memory::max_used(self.engine.model().placement.device),
        };
        self.events.send_with(&done, &picture.rgb);
    }

    fn fail(&self, job: String, error: String, fatal: bool) {
        tracing::error!(job, "{error}");
        self.events.send(&Event::Failed { job, error, fatal });
    }
}

/// An error with the step of a job in which it happened, where that says something.
fn at_step(panorama: &Panorama, error: &str) -> String {
    let progress = panorama.progress();
    match progress.step {
        _ if !range::is_explained(error) => error.to_owned(),
        step if step == progress.of => format!("after the last of {step} steps: {error}"),
        step => format!("step {} of {}: {error}", step + 1, progress.of),
    }
}

fn stage_of_event(stage: Stage) -> protocol::Stage {
    match stage {
        Stage::Denoise => protocol::Stage::Denoise,
        Stage::Synchronise => protocol::Stage::Synchronise,
        Stage::Target => protocol::Stage::Target,
        Stage::Decode => protocol::Stage::Decode,
    }
}
