//! Batches of made-up jobs, and the shares of a made-up device.

use panorama::{Checkpointing, Widths};
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    denoise: 8,
    synchronise: 2,
    checkpointing: Checkpointing::Off,
    widths: Widths::Any,
    strip: 1 << 26,
    kept: i64::MAX,
};

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

    fn kept(&self) -> i64 {
        0
    }

    fn keeps(&self) -> i64 {
        0
    }

    fn windows(&self) -> usize {
        self.windows
    }

    fn waiting(&self) -> usize {
        self.left
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

/// Prices that are those that were computed.
fn computed() -> Prices {
    Prices::assuming(1, 1e-9)
}

fn job(name: char, windows: usize) -> Job {
    Job { name, stage: Stage::Denoise, branches: 2, windows, left: windows, deficit: 0 }
}

/// The tasks of the next batches, each as a word; a job whose step is over begins the next.
fn batches(jobs: &mut [Job], limits: Limits, count: usize) -> Vec<String> {
    let mut schedule = Schedule::default();
    let next = |_| {
        let batch = schedule.next(jobs, limits, &computed()).unwrap();
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
    assert_eq!(Schedule::default().next(std::slice::from_mut(&mut done), LIMITS, &computed()), None);
    assert_eq!(Schedule::default().next::<Job>(&mut [], LIMITS, &computed()), None);
}

#[test]
fn a_job_alone_fills_batches() {
    assert_eq!(batches(&mut [job('a', 13)], LIMITS, 3), ["aaaaaaaa", "aaaaa", "aaaaaaaa"]);
    // One that waits for outcomes does not compete.
    let mut jobs = [job('a', 13), Job { left: 0, ..job('b', 1) }];
    assert_eq!(Schedule::default().next(&mut jobs, LIMITS, &computed()).unwrap().tasks, vec!['a'; 8]);
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

#[test]
fn gradients_wait_until_they_fill_a_batch() {
    let mut jobs = [job('a', 1), Job { stage: Stage::Synchronise, ..job('b', 3) }];
    let batches = batches(&mut jobs, LIMITS, 19);
    assert_eq!(batches.iter().filter(|batch| *batch == "bb").count(), 1, "{batches:?}");
    assert_eq!(batches.iter().filter(|batch| *batch == "b").count(), 1, "the last one comes alone: {batches:?}");
}

#[test]
fn a_share_is_one_of_time_whatever_a_task_was_computed_to_cost() {
    // A gradient takes 20 windows, and not the 6 it is computed to cost.
    let mut prices = Prices::assuming(1, 1e-3);
    prices.record(Kind { stage: Stage::Synchronise, branches: 2 }, 1, 6, 20e-3);
    let mut jobs = [job('a', 1), Job { stage: Stage::Synchronise, ..job('b', 1) }];
    let mut schedule = Schedule::default();
    let mut stages = Vec::new();
    for _ in 0..84 {
        stages.push(schedule.next(&mut jobs, LIMITS, &prices).unwrap().stage);
        for job in &mut jobs {
            job.left = 1;
        }
    }
    assert_eq!(stages.iter().filter(|&&stage| stage == Stage::Synchronise).count(), 4);
}

/// What a device takes for a batch.
#[derive(Clone, Copy)]
struct Device {
    limits: Limits,
    /// Seconds of a batch, by the windows that are computed.
    denoise: fn(f64) -> f64,
    synchronise: fn(f64) -> f64,
    target: f64,
    /// Of a picture, for each 12 windows.
    decode: f64,
    /// In how many parts a large picture is decoded.
    parts: usize,
}

/// The demo model on two cores: one window has both, and a gradient costs twice what it is computed to cost.
const TWO_CORES: Device = Device {
    limits: Limits { denoise: 15, ..LIMITS },
    denoise: |width| if width == 1.0 { 0.066 } else { 0.061 * width },
    synchronise: |width| if width == 1.0 { 1.0 } else { 1.3 * (width / 2.0).ceil() },
    target: 0.2,
    // Where the attention of 3072x3072 takes the most.
    decode: 0.46,
    parts: 100,
};

/// A GPU whose narrow batches are hardly faster than wide ones.
const GPU: Device = Device {
    limits: Limits { denoise: 26, synchronise: 12, widths: Widths::Listed, ..LIMITS },
    denoise: |width| 0.005 + 0.0043 * width,
    synchronise: |width| 0.02 + 0.03 * width,
    target: 0.012,
    decode: 0.01,
    parts: 1,
};

/// A job as a panorama is: each step synchronises, or none does.
#[derive(Clone)]
struct Panorama {
    windows: usize,
    synchronises: bool,
    steps: usize,
    step: usize,
    phase: usize,
    left: usize,
    deficit: u64,
    /// In how many parts its picture is decoded, and how many are decoded.
    parts: usize,
    decoded: usize,
}

const PHASES: [Stage; 5] = [Stage::Denoise, Stage::Target, Stage::Synchronise, Stage::Denoise, Stage::Decode];

impl Panorama {
    fn new(windows: usize, steps: usize, synchronises: bool) -> Self {
        let synchronises = synchronises && windows > 1;
        let mut panorama =
            Self { windows, synchronises, steps, step: 0, phase: 0, left: 0, deficit: 0, parts: 1, decoded: 0 };
        panorama.enter(if synchronises { 0 } else { 3 });
        panorama
    }

    fn decoded_in(self, parts: usize) -> Self {
        Self { parts, ..self }
    }

    fn enter(&mut self, phase: usize) {
        self.phase = phase;
        self.left = match PHASES[phase] {
            Stage::Synchronise => self.windows - 1,
            Stage::Denoise if phase == 3 => self.windows - usize::from(self.synchronises),
            _ => 1,
        };
    }

    /// All outcomes are in. `true` at the end.
    fn go_on(&mut self) -> bool {
        match self.phase {
            4 => {
                self.decoded += 1;
                if self.decoded == self.parts {
                    return true;
                }
                self.enter(4);
            }
            3 => {
                self.step += 1;
                let first = if self.synchronises { 0 } else { 3 };
                self.enter(if self.step == self.steps { 4 } else { first });
            }
            phase => self.enter(phase + 1),
        }
        false
    }
}

impl Flow for Panorama {
    type Task = ();

    fn stage(&self) -> Option<Stage> {
        (self.left > 0).then_some(PHASES[self.phase])
    }

    fn branches(&self) -> usize {
        2
    }

    fn kept(&self) -> i64 {
        if self.decoded > 0 && self.decoded < self.parts { self.keeps() } else { 0 }
    }

    fn keeps(&self) -> i64 {
        if self.parts > 1 { self.windows as i64 } else { 0 }
    }

    fn windows(&self) -> usize {
        self.windows
    }

    fn waiting(&self) -> usize {
        self.left
    }

    /// Those that [`geometry::Prices`] computes.
    fn price(&self, stage: Stage) -> u64 {
        let area = (self.windows as u64).div_ceil(12);
        match stage {
            Stage::Denoise => 804,
            Stage::Target => 1337,
            Stage::Synchronise => 4494,
            Stage::Decode => 1257 * area / self.parts as u64,
        }
    }

    fn take(&mut self, limit: usize) -> Vec<()> {
        let count = limit.min(self.left);
        self.left -= count;
        vec![(); count]
    }

    fn deficit(&mut self) -> &mut u64 {
        &mut self.deficit
    }
}

/// A device at work.
struct Run {
    device: Device,
    schedule: Schedule,
    prices: Prices,
    jobs: Vec<Panorama>,
    seconds: f64,
    /// Seconds of each job that was there at the beginning.
    spent: Vec<f64>,
}

impl Run {
    fn new(device: Device, jobs: Vec<Panorama>) -> Self {
        let prices = Prices::assuming(804, (device.denoise)(1.0));
        let spent = vec![0.0; jobs.len()];
        Self { device, schedule: Schedule::default(), prices, jobs, seconds: 0.0, spent }
    }

    /// Computes a batch. Returns its stage, and the jobs that ended with it.
    fn batch(&mut self) -> (Stage, Vec<usize>) {
        let limits = self.device.limits;
        let batch = self.schedule.next(&mut self.jobs, limits, &self.prices).unwrap();
        let computed = limits.padded(batch.stage, batch.tasks.len()) as f64;
        let leader = &self.jobs[batch.owners[0]];
        let area = leader.windows.div_ceil(12) as f64;
        let seconds = match batch.stage {
            Stage::Denoise => (self.device.denoise)(computed),
            Stage::Synchronise => (self.device.synchronise)(computed),
            Stage::Target => self.device.target,
            Stage::Decode => self.device.decode * area / leader.parts as f64,
        };
        let kind = Kind { stage: batch.stage, branches: batch.branches };
        self.prices.record(kind, batch.tasks.len(), leader.price(batch.stage), seconds);
        self.seconds += seconds;
        for &owner in &batch.owners {
            self.spent.resize(self.jobs.len().max(self.spent.len()), 0.0);
            self.spent[owner] += seconds / batch.owners.len() as f64;
        }
        let mut owners = batch.owners;
        owners.dedup();
        owners.retain(|&owner| self.jobs[owner].left == 0 && self.jobs[owner].go_on());
        (batch.stage, owners)
    }
}

/// The seconds of a job that comes right after the job before it has begun a batch of the stage.
fn seconds_beside(device: Device, mut large: Panorama, stage: Stage, small: &Panorama) -> f64 {
    // Prices are measured in a step before.
    large.steps += 1;
    let mut run = Run::new(device, vec![large]);
    let mut arrival;
    loop {
        arrival = run.seconds;
        let (begun, ended) = run.batch();
        if begun == stage && (run.jobs[0].step > 0 || stage == Stage::Decode) {
            if ended.is_empty() {
                run.jobs.push(small.clone());
            } else {
                run.jobs = vec![small.clone()];
            }
            break;
        }
    }
    loop {
        let small = run.jobs.len() - 1;
        let (_, ended) = run.batch();
        if ended.contains(&small) {
            return run.seconds - arrival;
        }
        assert!(ended.is_empty(), "the large job ends first");
    }
}

/// A job of one window takes at most three times as long as alone, in whatever phase a job of 441 windows is.
#[test]
fn a_small_job_takes_at_most_three_times_as_long() {
    for (name, device) in [("two cores", TWO_CORES), ("a GPU", GPU)] {
        let small = Panorama::new(1, 50, true);
        let mut alone = Run::new(device, vec![small.clone()]);
        while alone.batch().1.is_empty() {}
        for (synchronises, stages, steps) in [
            (false, &[Stage::Denoise][..], 40),
            (false, &[Stage::Decode], 1),
            (true, &[Stage::Denoise, Stage::Target, Stage::Synchronise], 40),
        ] {
            for &stage in stages {
                let large = Panorama::new(441, steps, synchronises).decoded_in(device.parts);
                let beside = seconds_beside(device, large, stage, &small);
                let times = beside / alone.seconds;
                assert!((1.0..=3.0).contains(&times), "{name}, {stage:?}, synchronises {synchronises}: {times}");
            }
        }
    }
}

/// Two jobs have the same share of the time, whatever their sizes and phases.
#[test]
fn shares_are_even() {
    for device in [TWO_CORES, GPU] {
        for synchronises in [false, true] {
            let jobs = vec![Panorama::new(441, 400, synchronises), Panorama::new(13, 9000, true)];
            let mut run = Run::new(device, jobs);
            for _ in 0..4000 {
                assert!(run.batch().1.is_empty(), "neither job ends");
            }
            let share = run.spent[1] / run.seconds;
            assert!((0.42..0.58).contains(&share), "synchronises {synchronises}: {share}");
        }
    }
}

proptest! {
    /// Any mixture of jobs: batches have one kind of tasks and a listed width, every task is in one of them, and
    /// pictures that are half decoded keep no more than they may.
    #[test]
    fn batches_have_listed_widths(
        jobs in prop::collection::vec((1..450_usize, 1..4_usize, any::<bool>(), 1..20_usize), 1..5),
        denoise in 1..30_usize,
        synchronise in 1..14_usize,
        kept in 450..1000_i64,
    ) {
        let limits = Limits { denoise, synchronise, kept, ..GPU.limits };
        let mut run = Run::new(
            Device { limits, ..GPU },
            jobs.into_iter()
                .map(|(windows, steps, synchronises, parts)| {
                    Panorama::new(windows, steps, synchronises).decoded_in(parts)
                })
                .collect(),
        );
        while !run.jobs.is_empty() {
            let before: usize = run.jobs.iter().map(|job| job.left).sum();
            let batch = run.schedule.next(&mut run.jobs, limits, &run.prices).unwrap();
            let after: usize = run.jobs.iter().map(|job| job.left).sum();
            prop_assert_eq!(before - after, batch.tasks.len());
            let widths = limits.widths(batch.stage);
            let computed = limits.padded(batch.stage, batch.tasks.len());
            prop_assert!(widths.contains(&computed) || (widths.is_empty() && computed == 1), "{} of {:?}", computed, widths);
            prop_assert!(batch.owners.is_sorted_by_key(|&owner| (owner + run.jobs.len() - batch.owners[0]) % run.jobs.len()));
            let mut owners = batch.owners;
            owners.dedup();
            owners.retain(|&owner| run.jobs[owner].left == 0 && run.jobs[owner].go_on());
            owners.sort_unstable();
            for &owner in owners.iter().rev() {
                run.jobs.remove(owner);
            }
            prop_assert!(run.jobs.iter().map(Flow::kept).sum::<i64>() <= kept);
        }
    }
}
