//! The workers of a service: a slot for each, its state, and the jobs that it holds.
//!
//! A slot stays while processes come and go. Nothing here knows of the queue or the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{Command, Given};

use crate::active::ActivePrediction;
use crate::given_pictures::names;
use crate::worker::Worker;

/// How often in a row a worker may end by itself before it is given up.
const MAX_FALLS: u32 = 5;
/// The wait before a worker that has ended by itself is started again; doubles with each end in a row.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// What can be expected of a worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum WorkerState {
    /// It loads for the first time.
    #[default]
    Loading,
    /// It accepts jobs.
    Ready,
    /// It was lost, and another process is being started.
    Lost(String),
    /// It could not load, and is not started again: its model or its device is at fault.
    LoadFailed(String),
    /// It was lost too often, and is not started again.
    Dead(String),
}

/// The slot of one worker.
#[derive(Debug, Default)]
pub(super) struct WorkerSlot {
    pub(super) state: WorkerState,
    /// How many jobs it advances at once, as it has reported.
    jobs: usize,
    /// Its process, once that is started.
    process: Option<Process>,
    /// What it holds, by job.
    running: HashMap<String, Held>,
    /// It holds a prediction that has lost a worker before, and gets no other beside it.
    exclusive: bool,
    /// Some process of this slot has been ready: its model and its device are sound.
    was_ready: bool,
    /// How often in a row it has ended by itself, that is without any job.
    falls: u32,
}

/// A job that a slot holds.
#[derive(Debug)]
struct Held {
    active: Arc<ActivePrediction>,
    /// Whether its process was sent it. Before, pictures are read for it, and the process knows nothing of it.
    sent: bool,
}

/// What is known of the process in a slot.
#[derive(Debug)]
struct Process {
    worker: Worker,
    /// When it last sent something or was sent a job, for the timeouts.
    last_sign: Instant,
    is_ready: bool,
    /// It has computed something: if it ends now, a job is at fault and not the process.
    worked: bool,
    /// Its own words for why it is about to end.
    fatal: Option<String>,
}

/// What follows from the end of a process.
#[derive(Debug)]
pub(super) struct Exit {
    /// What it had been sent.
    pub(super) held: Vec<Arc<ActivePrediction>>,
    /// What it had not been sent yet: it has no part in the end of the process.
    pub(super) unsent: Vec<Arc<ActivePrediction>>,
    /// Why it ended.
    pub(super) why: String,
    /// How often in a row a process of this slot has ended by itself, this one included.
    pub(super) falls: u32,
    /// Its error, if it could not load and has not said so itself.
    pub(super) load_error: Option<String>,
    /// How long to wait before it is started again; `None` if it is given up.
    pub(super) restart_after: Option<Duration>,
}

impl WorkerSlot {
    /// A process was started for it.
    pub(super) fn attach(&mut self, worker: Worker) {
        let last_sign = Instant::now();
        self.process = Some(Process { worker, last_sign, is_ready: false, worked: false, fatal: None });
    }

    /// It sent something.
    pub(super) fn touch(&mut self) {
        if let Some(process) = &mut self.process {
            process.last_sign = Instant::now();
        }
    }

    /// It has loaded, and advances up to `jobs` at once.
    pub(super) fn ready(&mut self, jobs: u32) {
        self.state = WorkerState::Ready;
        self.jobs = jobs.max(1) as usize;
        self.was_ready = true;
        if let Some(process) = &mut self.process {
            process.is_ready = true;
        }
    }

    /// It has reported an error after which it ends.
    pub(super) fn fatal(&mut self, error: &str) {
        if let Some(process) = &mut self.process {
            process.fatal = Some(error.to_owned());
        }
    }

    /// How much longer it may be silent; `None` if it may be for ever.
    pub(super) fn patience(&self, load: Duration, hang: Duration) -> Option<Duration> {
        let process = self.process.as_ref()?;
        let limit = match process.is_ready {
            false => load,
            true if !self.is_at_work() => return None,
            true => hang,
        };
        Some(limit.saturating_sub(process.last_sign.elapsed()))
    }

    /// Why a process that was silent for too long is ended.
    pub(super) fn silence(&mut self) -> &'static str {
        let Some(process) = &mut self.process else { return "it did not start in time" };
        if process.is_ready {
            // That it was sent a job is why it was waited for.
            process.worked = true;
            "it said nothing of its jobs in time"
        } else {
            "it did not load in time"
        }
    }

    /// Whether its process was sent a job that has not ended.
    fn is_at_work(&self) -> bool {
        self.running.values().any(|held| held.sent)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Arc<ActivePrediction>> {
        self.running.values().map(|held| &held.active)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == WorkerState::Ready
    }

    /// Whether it accepts jobs, or will again.
    pub(super) fn accepts_work(&self) -> bool {
        matches!(self.state, WorkerState::Ready | WorkerState::Lost(_))
    }

    /// How many more jobs it can hold.
    pub(super) fn free(&self) -> usize {
        if self.is_ready() && !self.exclusive { self.jobs.saturating_sub(self.running.len()) } else { 0 }
    }

    /// The prediction of a job that it holds.
    pub(super) fn job(&self, job: &str) -> Option<&Arc<ActivePrediction>> {
        self.running.get(job).map(|held| &held.active)
    }

    /// Gives it a job. One whose input names pictures is sent by [`Self::start`], once they are read.
    fn run(&mut self, job: String, active: Arc<ActivePrediction>, exclusive: bool) {
        self.exclusive = exclusive;
        let sent = names(active.input()).next().is_none();
        if sent {
            self.start(job.clone(), &active, Vec::new(), Vec::new());
        }
        self.running.insert(job, Held { active, sent });
    }

    /// Sends its process a job, with the pictures that the input names.
    pub(super) fn start(&mut self, job: String, active: &ActivePrediction, pictures: Vec<Given>, rgb: Vec<u8>) {
        self.touch();
        if let Some(held) = self.running.get_mut(&job) {
            held.sent = true;
        }
        if let Some(process) = &self.process {
            let input = Box::new(active.input().clone());
            process.worker.send_with(Command::Run { job, input, pictures }, rgb);
        }
    }

    /// Whether it holds a job of a prediction.
    pub(super) fn holds(&self, job: &str, active: &Arc<ActivePrediction>) -> bool {
        self.job(job).is_some_and(|held| Arc::ptr_eq(held, active))
    }

    /// Sends a command to its process, if there is one.
    pub(super) fn send(&self, command: Command) {
        if let Some(process) = &self.process {
            process.worker.send(command);
        }
    }

    /// Removes a job that has ended; how many others it holds beside it.
    pub(super) fn complete(&mut self, job: &str, computed: bool) -> Option<(Arc<ActivePrediction>, usize)> {
        let Held { active, .. } = self.running.remove(job)?;
        self.exclusive &= !self.running.is_empty();
        if let Some(process) = &mut self.process {
            process.worked |= computed;
        }
        Some((active, self.running.len()))
    }

    /// Ends its process and returns what it held.
    pub(super) fn detach(&mut self) -> Vec<Arc<ActivePrediction>> {
        self.process = None;
        self.exclusive = false;
        self.running.drain().map(|(_, held)| held.active).collect()
    }

    /// Its process has ended, or could not be started, and `how`.
    pub(super) fn exited(&mut self, how: String) -> Exit {
        let process = self.process.take();
        let worked = self.is_at_work() || process.as_ref().is_some_and(|process| process.worked);
        let why = process.and_then(|process| process.fatal).unwrap_or(how);
        self.falls = if worked { 0 } else { self.falls + 1 };
        let (mut load_error, mut restart_after) = (None, None);
        self.state = match std::mem::take(&mut self.state) {
            _ if self.was_ready && self.falls >= MAX_FALLS => WorkerState::Dead(why.clone()),
            _ if self.was_ready => {
                let wait = self.falls.checked_sub(1).map(|doublings| FIRST_WAIT * 2u32.pow(doublings));
                restart_after = Some(wait.unwrap_or_default());
                WorkerState::Lost(why.clone())
            }
            WorkerState::LoadFailed(error) => WorkerState::LoadFailed(error),
            _ => {
                let error = format!("the worker ended while it loaded: {why}");
                load_error = Some(error.clone());
                WorkerState::LoadFailed(error)
            }
        };
        let unsent = self.running.extract_if(|_, held| !held.sent).map(|(_, held)| held.active).collect();
        Exit { held: self.detach(), unsent, why, falls: self.falls, load_error, restart_after }
    }
}

/// All workers.
#[derive(Debug)]
pub(super) struct Workers {
    slots: Vec<WorkerSlot>,
    /// The number of the newest job; jobs are named by it, so that no name comes twice.
    last_job: u64,
}

impl Workers {
    pub(super) fn new(count: usize) -> Self {
        Self { slots: std::iter::repeat_with(WorkerSlot::default).take(count).collect(), last_job: 0 }
    }

    pub(super) fn slots(&self) -> &[WorkerSlot] {
        &self.slots
    }

    pub(super) fn slot(&mut self, worker: usize) -> &mut WorkerSlot {
        &mut self.slots[worker]
    }

    /// What all of them hold.
    pub(super) fn running(&self) -> impl Iterator<Item = &Arc<ActivePrediction>> {
        self.slots.iter().flat_map(WorkerSlot::running)
    }

    /// How many more jobs they can hold.
    pub(super) fn free(&self) -> usize {
        self.slots.iter().map(WorkerSlot::free).sum()
    }

    /// How many can compute something now, but at least one: what estimates divide by.
    pub(super) fn share(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_ready()).count().max(1)
    }

    /// Whether predictions are accepted: a worker is there, or was and comes back.
    pub(super) fn accept_work(&self) -> bool {
        self.slots.iter().any(WorkerSlot::accepts_work)
    }

    /// Whether no worker is left, and none will be started.
    pub(super) fn are_gone(&self) -> bool {
        !self.slots.iter().any(|slot| slot.accepts_work() || slot.state == WorkerState::Loading)
    }

    /// Why the last of them was lost permanently; `None` if one is left, or none ever loaded.
    pub(super) fn why_lost(&self) -> Option<&str> {
        if !self.are_gone() {
            return None;
        }
        self.slots.iter().find_map(|slot| match &slot.state {
            WorkerState::Dead(why) => Some(why.as_str()),
            _ => None,
        })
    }

    /// The worker that gets the next job: of those with room the one with the fewest. A suspect, which has lost a
    /// worker before, gets one for itself.
    pub(super) fn choose(&self, suspect: bool) -> Option<usize> {
        let fits = |slot: &WorkerSlot| slot.free() > 0 && (!suspect || slot.running.is_empty());
        let fitting = self.slots.iter().enumerate().filter(|(_, slot)| fits(slot));
        fitting.min_by_key(|(_, slot)| slot.running.len()).map(|(worker, _)| worker)
    }

    /// A name for the next job.
    pub(super) fn next_job(&mut self) -> String {
        self.last_job += 1;
        self.last_job.to_string()
    }

    /// Gives a worker a job that has begun.
    pub(super) fn run(&mut self, worker: usize, job: String, active: Arc<ActivePrediction>, suspect: bool) {
        self.slots[worker].run(job, active, suspect);
    }

    /// Tells a worker to stop a job.
    pub(super) fn cancel(&self, worker: usize, job: String) {
        self.slots[worker].send(Command::Cancel { job });
    }

    /// Has all processes leave, and returns what they held.
    pub(super) fn detach_all(&mut self) -> Vec<Arc<ActivePrediction>> {
        self.slots.iter().for_each(|slot| slot.send(Command::Shutdown));
        self.slots.iter_mut().flat_map(WorkerSlot::detach).collect()
    }
}

#[cfg(test)]
mod tests;
