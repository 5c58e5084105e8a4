//! The jobs of a worker: handles commands, advances all jobs batch by batch, and reports what happens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};
use std::time::Instant;

use geometry::{Ends, Layout};
use libtorch::Mark;
use panorama::range::Network;
use panorama::{Engine, Limits, Outcome, Picture, Preview, Progress, Stage, Task, range};
use protocol::{Command, Event, Figures, Input};
use sd2::tokenizer::Overlong;
use tch::{Device, Tensor};

use crate::backoff;
use crate::commands::Message;
use crate::events::Events;
use crate::failure::{catch, is_sticky};
use crate::memory;
use crate::panoramas::Panoramas;
use crate::pending::Pending;
use crate::pictures::Pictures;
use crate::prices::{Kind, Prices};
use crate::schedule::{Batch, Flow, Schedule};
use crate::settings::settings;
use crate::warmup::WarmUp;

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
    prices: Prices,
    pending: Pending<Given>,
    /// Jobs that are advanced, at most `capacity`.
    jobs: Vec<Job>,
    /// Jobs that wait for one of those to end.
    queue: VecDeque<(String, Input, Pictures)>,
    capacity: usize,
    /// No more jobs are accepted; when the ones it has are done, so is the worker.
    finishing: bool,
}

struct Job {
    name: String,
    panoramas: Panoramas,
    started: Instant,
    deficit: u64,
    /// Where the windows of its pictures are, if they are evaluated.
    evaluated: Option<Layout>,
    /// What those that are finished come to, by their numbers.
    figures: BTreeMap<u32, Figures>,
}

/// A batch that the device was given.
struct Given {
    stage: Stage,
    branches: usize,
    windows: usize,
    limit: usize,
    /// Computed price of a task.
    price: u64,
    /// Whether it was computed as it was planned, and not in parts.
    whole: bool,
    begin: Mark,
    end: Mark,
    /// For each task its job, the step of that, and whether its numbers are finite, where nobody has looked yet.
    numbers: Vec<(String, Progress, Option<Tensor>)>,
}

impl Flow for Job {
    type Task = (u32, Task);

    fn stage(&self) -> Option<Stage> {
        self.panoramas.stage()
    }

    fn branches(&self) -> usize {
        self.panoramas.branches()
    }

    fn kept(&self) -> i64 {
        self.panoramas.kept()
    }

    fn keeps(&self) -> i64 {
        self.panoramas.keeps()
    }

    fn windows(&self) -> usize {
        self.panoramas.windows()
    }

    fn waiting(&self) -> usize {
        self.panoramas.waiting()
    }

    fn price(&self, stage: Stage) -> u64 {
        self.panoramas.price(stage)
    }

    fn take(&mut self, limit: usize) -> Vec<(u32, Task)> {
        self.panoramas.take(limit)
    }

    fn deficit(&mut self) -> &mut u64 {
        &mut self.deficit
    }
}

impl<'a> Service<'a> {
    pub(crate) fn new(engine: Engine, warm: WarmUp, events: &'a Events, preview: Preview) -> Self {
        let lead = usize::from(engine.model().placement.device != Device::Cpu);
        Self {
            engine,
            limits: warm.limits,
            events,
            schedule: Schedule::default(),
            preview,
            prices: warm.prices,
            pending: Pending::new(lead),
            jobs: Vec::new(),
            queue: VecDeque::new(),
            capacity: warm.jobs as usize,
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
                // Of jobs that were cancelled.
                let rest = self.pending.rest();
                self.settle(rest)?;
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
            Message::Command(Command::Run { job, input, pictures }, bytes) => {
                let known = self.jobs.iter().any(|other| other.name == job)
                    || self.queue.iter().any(|(other, ..)| *other == job);
                if known {
                    self.events.send(&Event::Malformed { error: format!("the worker already has a job `{job}`") });
                } else if self.finishing {
                    self.fail(job, "the worker is shutting down".to_owned(), false);
                } else {
                    match Pictures::cut(pictures, &bytes) {
                        Ok(pictures) => self.queue.push_back((job, *input, pictures)),
                        Err(error) => self.fail(job, error, false),
                    }
                }
            }
            Message::Command(Command::Cancel { job }, _) => {
                let before = self.jobs.len() + self.queue.len();
                self.jobs.retain(|other| other.name != job);
                self.queue.retain(|(other, ..)| *other != job);
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
            let Some((name, input, pictures)) = self.queue.pop_front() else { return };
            let started = Instant::now();
            for line in self.notes(&input) {
                self.events.send(&Event::Log { job: name.clone(), line });
            }
            let begin = |n| {
                let settings = settings(input.of_picture(n), &pictures)?;
                let mut panorama =
                    catch(|| self.engine.begin(&settings).map_err(|invalid| invalid.to_string())).flatten()?;
                panorama.follow(self.engine.plan(&panorama, self.limits));
                Ok(panorama)
            };
            match (0..input.num_outputs.max(1)).map(begin).collect::<Result<Vec<_>, _>>() {
                Ok(begun) => {
                    let (ends, size) = (Ends::of(input.loop_closure, input.seamless), (input.width, input.height));
                    let layout = || self.engine.model().geometry().layout(size, input.stride, ends);
                    let (panoramas, evaluated) = (Panoramas::new(begun), input.evaluate.then(layout));
                    self.jobs.push(Job { name, panoramas, started, deficit: 0, evaluated, figures: BTreeMap::new() });
                }
                Err(error) => self.fail(name, error, false),
            }
        }
    }

    /// What whoever reads the log of a job should know of its texts.
    fn notes(&self, input: &Input) -> Vec<String> {
        let tokenizer = &self.engine.model().tokenizer;
        let mut texts = vec![("negative_prompt".to_owned(), input.negative_prompt.clone())];
        let of_prompt = |i| if input.prompts.is_empty() { "prompt".to_owned() } else { format!("prompts[{i}]") };
        let followed = panorama::texts(&input.prompt, &input.prompts).into_iter().enumerate();
        texts.splice(0..0, followed.map(|(i, text)| (of_prompt(i), text)));
        let overlong = texts.into_iter().filter_map(|(name, text)| Some((name, tokenizer.overlong(&text)?)));
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

    /// Gives the device one batch, and waits for those before it that it should have done by then.
    fn run_batch(&mut self) -> anyhow::Result<()> {
        let Some(batch) = self.schedule.next(&mut self.jobs, self.limits, &self.prices) else {
            return Ok(());
        };
        let Batch { stage, branches, owners, tasks } = batch;
        let (numbers, tasks): (Vec<u32>, Vec<Task>) = tasks.into_iter().unzip();
        let device = self.engine.model().placement.device;
        let engine = &self.engine;
        let before = self.limits;
        let mark = || Mark::new(device).map_err(|error| error.to_string());
        let computed = mark().and_then(|begin| {
            let outcomes = backoff::in_parts(&mut self.limits, stage, &tasks, |limits, tasks| {
                catch(|| engine.compute(tasks, limits))
            })?;
            Ok((begin, outcomes, mark()?))
        });
        let (begin, outcomes, end) = match computed {
            Ok(computed) => computed,
            Err(error) => return self.fail_batch(&owners, &error),
        };
        let number = |(&owner, outcome): (&usize, &Outcome)| {
            let Job { name, panoramas, .. } = &self.jobs[owner];
            (name.clone(), panoramas.progress(), outcome.finite())
        };
        let given = Given {
            stage,
            branches,
            windows: tasks.len(),
            limit: self.limits.of(stage),
            price: self.jobs[owners[0]].panoramas.price(stage),
            whole: self.limits == before,
            begin,
            end,
            numbers: owners.iter().zip(&outcomes).map(number).collect(),
        };
        let names: Vec<String> = owners.iter().map(|&owner| self.jobs[owner].name.clone()).collect();
        // What is compared with is needed at once, and the picture is the end.
        let done = self.pending.add(given, matches!(stage, Stage::Target | Stage::Decode));
        self.settle(done)?;
        let mut touched = Vec::new();
        for ((name, n), outcome) in names.into_iter().zip(numbers).zip(outcomes) {
            let Some(job) = self.jobs.iter().position(|job| job.name == name) else { continue };
            if let Outcome::OutOfRange(network) = outcome {
                let why = range::explain(self.engine.model(), network);
                self.fail(name.clone(), at_step(self.jobs[job].panoramas.progress(), &why), false);
                self.jobs.remove(job);
                touched.retain(|other| *other != name);
                continue;
            }
            if let Some((panorama, picture)) = self.jobs[job].panoramas.put(n, outcome) {
                self.evaluate(job, n, &picture);
                self.show_finished(job, n, &picture);
                if let Err(error) = catch(|| self.preview.learn(panorama.latents(), &picture)) {
                    tracing::warn!("nothing is learned for previews: {error}");
                }
                if self.jobs[job].panoramas.are_done() {
                    self.jobs.remove(job);
                    touched.retain(|other| *other != name);
                    continue;
                }
            }
            if !touched.contains(&name) {
                touched.push(name);
            }
        }
        for name in touched {
            if let Some(job) = self.jobs.iter().position(|job| job.name == name) {
                self.report_progress(job);
            }
        }
        Ok(())
    }

    /// Waits for batches, reports them, and ends the jobs whose numbers are not finite.
    fn settle(&mut self, batches: Vec<Given>) -> anyhow::Result<()> {
        for batch in batches {
            let Given { stage, branches, windows, limit, price, whole, begin, end, numbers } = batch;
            let seconds = match end.seconds_since(&begin) {
                Ok(seconds) => seconds,
                Err(error) => {
                    let names: Vec<String> = numbers.into_iter().map(|(name, ..)| name).collect();
                    let owners = |job: &Job| names.contains(&job.name);
                    let owners: Vec<usize> = (0..self.jobs.len()).filter(|&job| owners(&self.jobs[job])).collect();
                    self.fail_batch(&owners, &error.to_string())?;
                    continue;
                }
            };
            if whole {
                self.prices.record(Kind { stage, branches }, windows, price, seconds);
            }
            let (windows, limit) = (windows as u32, limit as u32);
            self.events.send(&Event::Batch { stage: stage_of_event(stage), windows, limit, seconds });
            for (name, progress, finite) in numbers {
                let infinite = finite.is_some_and(|finite| finite.int64_value(&[]) == 0);
                if let Some(job) = self.jobs.iter().position(|job| infinite && job.name == name) {
                    let why = range::explain(self.engine.model(), Network::UNet);
                    self.fail(name, at_step(progress, &why), false);
                    self.jobs.remove(job);
                }
            }
        }
        Ok(())
    }

    /// Ends the jobs of a batch that failed, and all jobs if the device cannot recover.
    fn fail_batch(&mut self, owners: &[usize], error: &str) -> anyhow::Result<()> {
        let fatal = is_sticky(error);
        let mut index = 0;
        let mut failed = Vec::new();
        self.jobs.retain(|job| {
            index += 1;
            let fails = fatal || owners.contains(&(index - 1));
            if fails {
                failed.push((job.name.clone(), job.panoramas.progress()));
            }
            !fails
        });
        for (name, progress) in failed {
            self.fail(name, if fatal { error.to_owned() } else { at_step(progress, error) }, fatal);
        }
        if fatal {
            anyhow::bail!("the device cannot recover: {error}");
        }
        Ok(())
    }

    /// Sends a preview of a job, if there is anything to show.
    fn show(&self, job: &str) {
        let job_of_name = self.jobs.iter().find(|other| other.name == job);
        let Some(panorama) = job_of_name.and_then(|job| job.panoramas.first()) else { return };
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
        let Job { name, panoramas, started, .. } = &self.jobs[job];
        let progress = panoramas.progress();
        self.events.send(&Event::Progress {
            job: name.clone(),
            step: progress.step,
            of: progress.of,
            seconds: started.elapsed().as_secs_f64(),
            fraction: progress.fraction,
        });
    }

    /// Evaluates a picture that is finished, if its job asks for that. Without figures it is as good a picture.
    fn evaluate(&mut self, job: usize, n: u32, picture: &Picture) {
        let Job { name, evaluated: Some(layout), figures, .. } = &mut self.jobs[job] else { return };
        let found = catch(|| self.engine.figures(*layout, picture)).and_then(crate::evaluate::checked);
        figures.insert(
            n,
            found.unwrap_or_else(|error| {
                tracing::warn!("a picture cannot be evaluated: {error}");
                let line = format!("the picture cannot be evaluated: {error}").replace('\n', " ");
                self.events.send(&Event::Log { job: name.clone(), line });
                Figures::default()
            }),
        );
    }

    /// Sends a picture that is finished, and the end of its job if it is the last.
    fn show_finished(&self, job: usize, n: u32, picture: &Picture) {
        let Job { name, panoramas, started, figures, .. } = &self.jobs[job];
        let (job, Picture { width, height, rgb }) = (name.clone(), picture);
        let (width, height) = (*width, *height);
        let alone = panoramas.count() == 1;
        if !alone {
            self.events.send_with(&Event::Picture { job: job.clone(), n, width, height }, rgb);
        }
        if !panoramas.are_done() {
            return;
        }
        let work = panoramas.work();
        let done = Event::Done {
            job,
            width,
            height,
            seconds: started.elapsed().as_secs_f64(),
            work: protocol::Work {
                unet_forwards: work.unet_forwards,
                unet_backwards: work.unet_backwards,
                window_decodes: work.window_decodes,
                window_decode_backwards: work.window_decode_backwards,
                perceptual_forwards: work.perceptual_forwards,
                perceptual_backwards: work.perceptual_backwards,
                text_encodes: work.text_encodes,
                picture_encodes: work.picture_encodes,
            },
            figures: figures.values().copied().collect(),
            peak_memory_bytes: memory::max_used(self.engine.model().placement.device),
        };
        self.events.send_with(&done, if alone { rgb } else { &[] });
    }

    fn fail(&self, job: String, error: String, fatal: bool) {
        tracing::error!(job, "{error}");
        self.events.send(&Event::Failed { job, error, fatal });
    }
}

/// An error with the step of a job in which it happened, where that says something.
fn at_step(progress: Progress, error: &str) -> String {
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
