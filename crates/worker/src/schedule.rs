//! Whose windows go next: a deficit round robin over jobs.
//!
//! Shreedhar and Varghese, "Efficient Fair Queueing using Deficit Round Robin". Every batch adds a quantum to what each
//! job may spend: the windows of the smallest. So nobody waits for more than his own step would take from each of the
//! others, and jobs of one size fill wide batches. A batch begins with the next job in the round that can pay a task,
//! and is filled up with tasks of the same kind of the jobs after it, each out of its own purse; so jobs share the
//! device evenly however many windows they have. A job alone does not pay.

use panorama::{Kind, Limits, Panorama, Task};

/// Where the round is.
#[derive(Default)]
pub(crate) struct Schedule {
    turn: usize,
}

/// A job as the schedule sees it.
pub(crate) trait Competitor {
    /// Its panorama.
    fn panorama(&mut self) -> &mut Panorama;
    /// What it may spend, in the unit of [`Panorama::cost`].
    fn purse(&mut self) -> &mut f64;
}

/// A batch: tasks of one kind and the index of the job of each.
pub(crate) struct Batch {
    pub(crate) kind: Kind,
    pub(crate) jobs: Vec<usize>,
    pub(crate) tasks: Vec<Task>,
}

impl Batch {
    fn branches(&self) -> usize {
        self.tasks[0].branches()
    }
}

impl Schedule {
    /// The next batch of the jobs. `None` only if no job has anything to do.
    pub(crate) fn next(&mut self, jobs: &mut [impl Competitor], limits: Limits) -> Option<Batch> {
        let ready = jobs.iter_mut().filter_map(|job| job.panorama().kind()).count();
        if ready == 0 {
            return None;
        }
        // No more than an even share of a batch.
        let share = limits.denoise.div_ceil(ready);
        let quantum = jobs.iter_mut().map(|job| job.panorama().windows()).min()?.min(share);
        let round: Vec<usize> = (1..=jobs.len()).map(|i| (self.turn + i) % jobs.len()).collect();
        let mut batch: Option<Batch> = None;
        while batch.is_none() {
            for job in jobs.iter_mut() {
                *job.purse() += quantum as f64 * job.panorama().price(Kind::Denoise);
            }
            for &i in &round {
                let job = &mut jobs[i];
                let Some(kind) = job.panorama().kind() else { continue };
                let (taken, fits) = match &batch {
                    None => (0, true),
                    Some(batch) => {
                        (batch.tasks.len(), batch.kind == kind && batch.branches() == job.panorama().branches())
                    }
                };
                let price = job.panorama().price(kind);
                let affordable = if ready == 1 { usize::MAX } else { (*job.purse() / price) as usize };
                let count = affordable.min(limits.of(kind) - taken);
                if !fits || count == 0 {
                    continue;
                }
                let tasks = job.panorama().take(count);
                // Nothing is saved up by a job that has nothing left to buy, nor by one that is alone.
                let left = *job.purse() - price * tasks.len() as f64;
                *job.purse() = if job.panorama().kind().is_none() { 0.0 } else { left.max(0.0) };
                let batch = batch.get_or_insert_with(|| {
                    self.turn = i;
                    Batch { kind, jobs: Vec::new(), tasks: Vec::new() }
                });
                batch.jobs.extend(std::iter::repeat_n(i, tasks.len()));
                batch.tasks.extend(tasks);
            }
        }
        batch
    }
}
