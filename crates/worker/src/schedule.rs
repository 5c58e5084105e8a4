//! Whose windows go next: deficit round robin over jobs.
//!
//! Shreedhar and Varghese, "Efficient Fair Queueing using Deficit Round Robin": a job is a flow, a task a packet, and
//! its price the packet's size. Every batch adds a quantum to each flow's deficit counter: the windows of the smallest
//! job. So no job waits for more than its own step would take from each of the others, and jobs of one size fill wide
//! batches. A batch begins with the next flow in the round whose deficit covers a task, and is filled up with tasks of
//! the same stage of the flows after it, each on its own deficit; so jobs share the device evenly however many windows
//! they have. A flow without competition needs no deficit.

use std::iter::repeat_n;

use panorama::{Limits, Stage};

/// A job as the schedule sees it.
pub(crate) trait Flow {
    type Task;

    /// The stage of its next tasks, if it has any.
    fn stage(&self) -> Option<Stage>;
    /// Guidance branches of its tasks; those of a batch have as many.
    fn branches(&self) -> usize;
    fn windows(&self) -> usize;
    /// What a task of a stage costs.
    fn price(&self, stage: Stage) -> u64;
    /// Takes up to `limit` tasks.
    fn take(&mut self, limit: usize) -> Vec<Self::Task>;
    /// What it may spend, in the unit of [`Self::price`].
    fn deficit(&mut self) -> &mut u64;
}

/// Where the round is.
#[derive(Default)]
pub(crate) struct Schedule {
    /// The flow that began the last batch.
    turn: usize,
}

/// A batch: tasks of one stage and number of guidance branches, and the index of each one's flow.
#[derive(Debug, PartialEq)]
pub(crate) struct Batch<T> {
    pub(crate) stage: Stage,
    branches: usize,
    pub(crate) owners: Vec<usize>,
    pub(crate) tasks: Vec<T>,
}

impl Schedule {
    /// The next batch. `None` only if no flow has anything to do.
    pub(crate) fn next<F: Flow>(&mut self, flows: &mut [F], limits: Limits) -> Option<Batch<F::Task>> {
        let ready = flows.iter().filter(|flow| flow.stage().is_some()).count();
        if ready == 0 {
            return None;
        }
        // No more than an even share of a batch.
        let share = limits.denoise.div_ceil(ready);
        let quantum = flows.iter().map(Flow::windows).min()?.min(share) as u64;
        let round: Vec<usize> = (1..=flows.len()).map(|i| (self.turn + i) % flows.len()).collect();
        let mut batch: Option<Batch<F::Task>> = None;
        while batch.is_none() {
            for flow in flows.iter_mut() {
                let earned = quantum * flow.price(Stage::Denoise);
                *flow.deficit() += earned;
            }
            for &i in &round {
                let flow = &mut flows[i];
                let Some(stage) = flow.stage() else { continue };
                let branches = flow.branches();
                let (taken, fits) = match &batch {
                    None => (0, true),
                    Some(batch) => (batch.tasks.len(), batch.stage == stage && batch.branches == branches),
                };
                let price = flow.price(stage);
                let affordable = if ready == 1 { usize::MAX } else { (*flow.deficit() / price) as usize };
                let count = affordable.min(limits.of(stage).saturating_sub(taken));
                if !fits || count == 0 {
                    continue;
                }
                let tasks = flow.take(count);
                // A flow that has nothing left to do saves nothing, nor does one without competition.
                let left = flow.deficit().saturating_sub(price * tasks.len() as u64);
                *flow.deficit() = if flow.stage().is_none() { 0 } else { left };
                let batch = batch.get_or_insert_with(|| {
                    self.turn = i;
                    Batch { stage, branches, owners: Vec::new(), tasks: Vec::new() }
                });
                batch.owners.extend(repeat_n(i, tasks.len()));
                batch.tasks.extend(tasks);
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use panorama::Checkpointing;

    use super::*;

    const LIMITS: Limits = Limits { denoise: 8, synchronise: 2, checkpointing: Checkpointing::Off };

    /// A job whose steps are all of one stage.
    struct Job {
        name: char,
        stage: Stage,
        branches: usize,
        windows: usize,
        /// Windows that are left of this step.
        left: usize,
        deficit: u64,
    }

    impl Flow for Job {
        type Task = char;

        fn stage(&self) -> Option<Stage> {
            (self.left > 0).then_some(self.stage)
        }

        fn branches(&self) -> usize {
            self.branches
        }

        fn windows(&self) -> usize {
            self.windows
        }

        fn price(&self, stage: Stage) -> u64 {
            if stage == Stage::Synchronise { 6 } else { 1 }
        }

        fn take(&mut self, limit: usize) -> Vec<char> {
            let count = limit.min(self.left);
            self.left -= count;
            vec![self.name; count]
        }

        fn deficit(&mut self) -> &mut u64 {
            &mut self.deficit
        }
    }

    fn job(name: char, windows: usize) -> Job {
        Job { name, stage: Stage::Denoise, branches: 2, windows, left: windows, deficit: 0 }
    }

    /// The tasks of the next batches, each as a word; a job whose step is over begins the next.
    fn batches(jobs: &mut [Job], limits: Limits, count: usize) -> Vec<String> {
        let mut schedule = Schedule::default();
        let next = |_| {
            let batch = schedule.next(jobs, limits).unwrap();
            assert_eq!(batch.owners.len(), batch.tasks.len());
            assert!(std::iter::zip(&batch.owners, &batch.tasks).all(|(&owner, &task)| jobs[owner].name == task));
            for job in jobs.iter_mut().filter(|job| job.left == 0) {
                job.left = job.windows;
            }
            batch.tasks.into_iter().collect()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn nothing_to_do_is_no_batch() {
        let mut done = Job { left: 0, ..job('a', 3) };
        assert_eq!(Schedule::default().next(std::slice::from_mut(&mut done), LIMITS), None);
        assert_eq!(Schedule::default().next::<Job>(&mut [], LIMITS), None);
    }

    #[test]
    fn a_job_alone_fills_batches() {
        assert_eq!(batches(&mut [job('a', 13)], LIMITS, 3), ["aaaaaaaa", "aaaaa", "aaaaaaaa"]);
        // One that waits for outcomes does not compete.
        let mut jobs = [job('a', 13), Job { left: 0, ..job('b', 1) }];
        assert_eq!(Schedule::default().next(&mut jobs, LIMITS).unwrap().tasks, vec!['a'; 8]);
        assert_eq!(jobs[0].deficit, 0, "what nothing was paid for is not saved");
    }

    #[test]
    fn jobs_of_one_size_share_batches() {
        assert_eq!(batches(&mut [job('a', 4), job('b', 4)], LIMITS, 2), ["bbbbaaaa", "aaaabbbb"]);
    }

    #[test]
    fn a_small_job_is_not_kept_waiting_by_a_large_one() {
        // A step of the small one costs as much as what the large one gets of each batch.
        assert_eq!(batches(&mut [job('a', 24), job('b', 1)], LIMITS, 4), ["ba", "ab", "ba", "ab"]);
    }

    #[test]
    fn a_batch_has_one_stage_and_number_of_branches() {
        let mut jobs = [job('a', 2), Job { branches: 1, ..job('b', 2) }];
        assert_eq!(batches(&mut jobs, LIMITS, 2), ["bb", "aa"]);
        let mut jobs = [job('a', 2), Job { stage: Stage::Decode, ..job('b', 2) }];
        assert_eq!(batches(&mut jobs, LIMITS, 2), ["b", "aa"]);
    }

    #[test]
    fn a_dear_task_waits_until_it_is_covered() {
        // A gradient costs six windows, so it comes after six quanta of one window.
        let mut jobs = [job('a', 1), Job { stage: Stage::Synchronise, ..job('b', 1) }];
        assert_eq!(batches(&mut jobs, LIMITS, 8), ["a", "a", "a", "a", "a", "b", "a", "a"]);
    }
}
