//! The panoramas of one job, which are one flow of the schedule: they share its place in the round and its batches.
//!
//! Those that are furthest behind have their turn first, so all stay at about the same step, and their tasks are of one
//! stage and fill batches together. A picture that is half decoded comes before all: what it keeps is much.

use std::cmp::Ordering;

use panorama::{Outcome, Panorama, Picture, Progress, Stage, Task, Work};

/// The panoramas of a job, by their numbers.
pub(crate) struct Panoramas {
    /// Those that are not finished.
    left: Vec<(u32, Panorama)>,
    /// How many there are in all.
    count: u32,
    /// The work of those that are finished.
    done: Work,
    /// Steps of each.
    steps: u32,
}

impl Panoramas {
    /// At least one, none of them advanced.
    pub(crate) fn new(panoramas: Vec<Panorama>) -> Self {
        let steps = panoramas.first().map_or(0, |panorama| panorama.progress().of);
        let left: Vec<_> = (0..).zip(panoramas).collect();
        Self { count: left.len() as u32, left, done: Work::default(), steps }
    }

    /// How many there are, finished ones included.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Whether all are finished.
    pub(crate) fn are_done(&self) -> bool {
        self.left.is_empty()
    }

    /// The first that is not finished.
    pub(crate) fn first(&self) -> Option<&Panorama> {
        self.left.first().map(|(_, panorama)| panorama)
    }

    /// The stage of the tasks that come next.
    pub(crate) fn stage(&self) -> Option<Stage> {
        let ready = self.left.iter().filter_map(|(_, panorama)| Some((panorama, panorama.stage()?)));
        ready.min_by(|(a, _), (b, _)| by_turn(a, b)).map(|(_, stage)| stage)
    }

    /// How many numbers the pictures that are half decoded keep, at most.
    pub(crate) fn kept(&self) -> i64 {
        let half_decoded = self.left.iter().filter(|(_, panorama)| panorama.is_half_decoded());
        half_decoded.map(|(_, panorama)| panorama.plan().kept).sum()
    }

    /// How many a picture keeps when it is half decoded.
    pub(crate) fn keeps(&self) -> i64 {
        self.first().map_or(0, |panorama| panorama.plan().kept)
    }

    pub(crate) fn branches(&self) -> usize {
        self.first().map_or(1, Panorama::branches)
    }

    pub(crate) fn windows(&self) -> usize {
        self.left.iter().map(|(_, panorama)| panorama.windows()).sum()
    }

    /// How many tasks of the next stage there are.
    pub(crate) fn waiting(&self) -> usize {
        let stage = self.stage();
        let same = self.left.iter().filter(|(_, panorama)| panorama.stage() == stage);
        same.map(|(_, panorama)| panorama.waiting()).sum()
    }

    pub(crate) fn price(&self, stage: Stage) -> u64 {
        self.first().map_or(0, |panorama| panorama.price(stage))
    }

    /// Takes up to `limit` tasks of the next stage, each with the number of its picture.
    pub(crate) fn take(&mut self, limit: usize) -> Vec<(u32, Task)> {
        let stage = self.stage();
        let mut same: Vec<_> = self.left.iter_mut().filter(|(_, panorama)| panorama.stage() == stage).collect();
        same.sort_by(|(_, a), (_, b)| by_turn(a, b));
        let mut taken = Vec::new();
        for (n, panorama) in same {
            let tasks = panorama.take(limit - taken.len());
            taken.extend(tasks.into_iter().map(|task| (*n, task)));
        }
        taken
    }

    /// Gives a picture the outcome of its task; the panorama too, if that was its last.
    pub(crate) fn put(&mut self, n: u32, outcome: Outcome) -> Option<(Panorama, Picture)> {
        let at = self.left.iter().position(|(other, _)| *other == n)?;
        let picture = self.left[at].1.put(outcome)?;
        let (_, panorama) = self.left.remove(at);
        self.done = sum(self.done, panorama.work());
        Some((panorama, picture))
    }

    /// How far all of them are: the step that all have done, and the share of the work of all.
    pub(crate) fn progress(&self) -> Progress {
        let each = || self.left.iter().map(|(_, panorama)| panorama.progress());
        let finished = f64::from(self.count) - self.left.len() as f64;
        let fraction =
            (finished + each().map(|progress| progress.fraction).sum::<f64>()) / f64::from(self.count.max(1));
        Progress { step: each().map(|progress| progress.step).min().unwrap_or(self.steps), of: self.steps, fraction }
    }

    /// What was computed for all of them.
    pub(crate) fn work(&self) -> Work {
        self.left.iter().fold(self.done, |work, (_, panorama)| sum(work, panorama.work()))
    }
}

/// Whose turn comes first.
fn by_turn(a: &Panorama, b: &Panorama) -> Ordering {
    let turn = |panorama: &Panorama| (!panorama.is_half_decoded(), panorama.progress().fraction);
    let ((waits, fraction), (other_waits, other_fraction)) = (turn(a), turn(b));
    waits.cmp(&other_waits).then(fraction.total_cmp(&other_fraction))
}

fn sum(a: Work, b: Work) -> Work {
    Work {
        unet_forwards: a.unet_forwards + b.unet_forwards,
        unet_backwards: a.unet_backwards + b.unet_backwards,
        window_decodes: a.window_decodes + b.window_decodes,
        window_decode_backwards: a.window_decode_backwards + b.window_decode_backwards,
        perceptual_forwards: a.perceptual_forwards + b.perceptual_forwards,
        perceptual_backwards: a.perceptual_backwards + b.perceptual_backwards,
        text_encodes: a.text_encodes + b.text_encodes,
        picture_encodes: a.picture_encodes + b.picture_encodes,
    }
}
