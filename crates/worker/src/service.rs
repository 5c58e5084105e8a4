//! The jobs of a worker: takes commands, advances all jobs batch by batch, and says what happens.

use std::{
    any::Any,
    collections::VecDeque,
    iter::zip,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, RecvError, TryRecvError},
    time::Instant,
};

use panorama::{Engine, Kind, Panorama, Picture, Settings};
use protocol::{Command, Event, Input, Stage};

use crate::{
    backoff,
    commands::Message,
    events::Events,
    memory,
    schedule::{Batch, Competitor, Schedule},
};

/// All there is to do, and who does it.
pub(crate) struct Service<'a> {
    engine: Engine,
    events: &'a Events,
    schedule: Schedule,
    /// Jobs that are advanced, at most `capacity`.
    jobs: Vec<Job>,
    /// Jobs that wait for a place.
    queue: VecDeque<(String, Input)>,
    capacity: usize,
    /// No more jobs come; when those at hand are done, so is the worker.
    finishing: bool,
}

struct Job {
    name: String,
    panorama: Panorama,
    started: Instant,
    purse: f64,
}

impl Competitor for Job {
    fn panorama(&mut self) -> &mut Panorama {
        &mut self.panorama
    }

    fn purse(&mut self) -> &mut f64 {
        &mut self.purse
    }
}

impl<'a> Service<'a> {
    pub(crate) fn new(engine: Engine, events: &'a Events, capacity: usize) -> Self {
        Self {
            engine,
            events,
            schedule: Schedule::default(),
            jobs: Vec::new(),
            queue: VecDeque::new(),
            capacity,
            finishing: false,
        }
    }

    /// Serves until stdin ends, or until a shutdown and the end of the jobs at hand.
    ///
    /// # Errors
    /// If the device is beyond repair; its jobs were told.
    pub(crate) fn serve(mut self, commands: &Receiver<Message>) -> anyhow::Result<()> {
        loop {
            let idle = self.jobs.is_empty() && self.queue.is_empty();
            if idle && self.finishing {
                return Ok(());
            }
            if idle {
                match commands.recv() {
                    Ok(message) => self.obey(message),
                    Err(RecvError) => return Ok(()),
                }
            }
            loop {
                match commands.try_recv() {
                    Ok(message) => self.obey(message),
                    Err(TryRecvError::Empty) => break,
                    // Nobody is there to take the results.
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.admit();
            self.advance()?;
        }
    }

    fn obey(&mut self, message: Message) {
        match message {
            Message::Command(Command::Run { job, input }) => {
                let known = self.jobs.iter().any(|other| other.name == job)
                    || self.queue.iter().any(|(other, _)| *other == job);
                if known {
                    self.events.send(&Event::Malformed { error: format!("the job `{job}` is at hand already") });
                } else if self.finishing {
                    self.fail(job, "the worker is shutting down".to_owned(), false);
                } else {
                    self.queue.push_back((job, input));
                }
            }
            Message::Command(Command::Cancel { job }) => {
                let before = self.jobs.len() + self.queue.len();
                self.jobs.retain(|other| other.name != job);
                self.queue.retain(|(other, _)| *other != job);
                if self.jobs.len() + self.queue.len() < before {
                    self.events.send(&Event::Canceled { job });
                }
            }
            Message::Command(Command::Shutdown) => self.finishing = true,
            Message::Malformed(error) => {
                tracing::warn!("malformed command: {error}");
                self.events.send(&Event::Malformed { error });
            }
        }
    }

    /// Begins jobs while there is room.
    fn admit(&mut self) {
        while self.jobs.len() < self.capacity {
            let Some((name, input)) = self.queue.pop_front() else { return };
            let started = Instant::now();
            match guarded(|| self.engine.begin(&settings(input))) {
                Ok(Ok(panorama)) => self.jobs.push(Job { name, panorama, started, purse: 0.0 }),
                Ok(Err(invalid)) => self.fail(name, invalid.to_string(), false),
                Err(error) => self.fail(name, error, false),
            }
        }
    }

    /// Computes one batch.
    fn advance(&mut self) -> anyhow::Result<()> {
        let Some(Batch { kind, jobs: owners, tasks }) = self.schedule.next(&mut self.jobs, self.engine.limits) else {
            return Ok(());
        };
        let (windows, begun) = (tasks.len() as u32, Instant::now());
        let mut limits = self.engine.limits;
        let outcomes = backoff::in_parts(&mut limits, kind, &tasks, |limits, tasks| {
            self.engine.limits = limits;
            guarded(|| self.engine.compute(kind, tasks))
        });
        let seconds = begun.elapsed().as_secs_f64();
        let mut ended = Vec::new();
        match outcomes {
            Ok(outcomes) => {
                let limit = self.engine.limits.of(kind) as u32;
                self.events.send(&Event::Batch { stage: stage(kind), windows, limit, seconds });
                for (&owner, (task, outcome)) in owners.iter().zip(zip(tasks, outcomes)) {
                    if let Some(picture) = self.jobs[owner].panorama.put(task, outcome) {
                        self.finish(owner, &picture);
                        ended.push(owner);
                    }
                }
                let mut touched = owners;
                touched.dedup();
                for owner in touched.into_iter().filter(|owner| !ended.contains(owner)) {
                    self.tell_progress(owner);
                }
            }
            Err(error) => {
                let fatal = is_sticky(&error);
                ended = if fatal { (0..self.jobs.len()).collect() } else { owners };
                ended.dedup();
                for &owner in &ended {
                    self.fail(self.jobs[owner].name.clone(), error.clone(), fatal);
                }
                if fatal {
                    anyhow::bail!("the device is beyond repair: {error}");
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

    fn tell_progress(&self, job: usize) {
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
            peak_memory_bytes: memory::most_used(self.engine.model().placement.device),
        };
        self.events.send_with(&done, &picture.rgb);
    }

    fn fail(&self, job: String, error: String, fatal: bool) {
        tracing::error!(job, "{error}");
        self.events.send(&Event::Failed { job, error, fatal });
    }
}

fn stage(kind: Kind) -> Stage {
    match kind {
        Kind::Denoise => Stage::Denoise,
        Kind::Synchronise => Stage::Synchronise,
        Kind::Target => Stage::Target,
        Kind::Decode => Stage::Decode,
    }
}

fn settings(input: Input) -> Settings {
    Settings {
        prompt: input.prompt,
        negative_prompt: input.negative_prompt,
        width: i64::from(input.width),
        height: i64::from(input.height),
        guidance_scale: input.guidance_scale,
        sync_weight: input.sync_weight,
        sync_decay_rate: input.sync_decay_rate,
        sync_freq: input.sync_freq,
        sync_threshold: input.sync_threshold,
        num_inference_steps: input.num_inference_steps,
        stride: i64::from(input.stride),
        seed: input.seed,
        loop_closure: input.loop_closure,
    }
}

/// Runs something in which libtorch may fail. What it says becomes the error.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| words(panic.as_ref()))
}

/// The words of a panic. Those of `tch` are an exception of C++ in the debug format, its stack and all.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.as_str(),
        (None, Some(text)) => text,
        (None, None) => "the computation failed without a message",
    };
    let text = text.split_once("Torch(\"").map_or(text, |(_, exception)| exception);
    text.split("\\nException raised from").next().unwrap_or(text).trim_end_matches("\")").to_owned()
}

/// Whether a CUDA error makes every later call fail, too. Running out of memory does not.
fn is_sticky(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    let of_device = ["cuda error", "cublas_status", "device-side assert"].iter().any(|words| error.contains(words));
    of_device && !backoff::is_out_of_memory(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_libtorch_is_an_error_with_its_words() {
        let error = guarded(|| tch::Tensor::zeros([2], (tch::Kind::Float, tch::Device::Cpu)).view([3])).unwrap_err();
        assert!(error.contains("shape '[3]' is invalid for input of size 2"), "{error}");
        assert!(!error.contains("frame #"), "{error}");
    }

    #[test]
    fn only_what_spoils_the_device_is_sticky() {
        assert!(is_sticky("CUDA error: an illegal memory access was encountered"));
        assert!(is_sticky("CUDA error: device-side assert triggered"));
        assert!(!is_sticky("CUDA out of memory. Tried to allocate 2.00 GiB"));
        assert!(!is_sticky("CUDA error: out of memory"));
        assert!(!is_sticky("shape '[3]' is invalid for input of size 2"));
    }
}
