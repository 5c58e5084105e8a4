//! How much is computed at once.

use sd2::Checkpointing;
use sd2::vae::Decoder;

use crate::task::Stage;

/// How many tasks go in a batch, by their stage, and how a gradient and a picture are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Windows whose UNet output is computed at once.
    pub denoise: usize,
    /// Windows whose gradient is computed at once.
    pub synchronise: usize,
    /// Whether a gradient recomputes activations to save memory.
    pub checkpointing: Checkpointing,
    /// Which widths batches have.
    pub widths: Widths,
    /// Numbers of a feature map that a strip has when a picture is decoded.
    pub strip: i64,
    /// Numbers that pictures may keep between two parts of their decoding, while other tasks are computed. One that
    /// keeps more goes on to the next part at once.
    pub kept: i64,
}

/// Which widths batches have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Widths {
    /// Any up to the limit.
    Any,
    /// Those of a short list, all of which a warm-up has seen: a GPU takes seconds for the first batch of a width.
    Listed,
}

/// Of UNet outputs. 13 and 26 are the windows of 2048x512, once and twice.
const DENOISE: [usize; 6] = [1, 2, 4, 8, 13, 26];

/// Of gradients. All windows of 2048x512 but the anchor are 12.
const SYNCHRONISE: [usize; 4] = [1, 4, 6, 12];

/// What a batch costs beyond its windows, in windows: narrow batches use less of a GPU.
const BATCH: usize = 2;

/// One window at a time, which fits everywhere.
impl Default for Limits {
    fn default() -> Self {
        Self {
            denoise: 1,
            synchronise: 1,
            checkpointing: Checkpointing::Off,
            widths: Widths::Any,
            strip: Decoder::STRIP,
            kept: 0,
        }
    }
}

impl Limits {
    /// The most tasks of a stage in one batch.
    pub fn of(&self, stage: Stage) -> usize {
        match (stage, self.widths(stage).last()) {
            (Stage::Target | Stage::Decode, _) => 1,
            (_, Some(&widest)) => widest,
            (Stage::Denoise, None) => self.denoise,
            (Stage::Synchronise, None) => self.synchronise,
        }
    }

    /// The widths that batches of a stage have, from the narrowest up; none if they have any.
    pub fn widths(&self, stage: Stage) -> &'static [usize] {
        let (list, limit): (&'static [usize], usize) = match (self.widths, stage) {
            (Widths::Listed, Stage::Denoise) => (&DENOISE, self.denoise),
            (Widths::Listed, Stage::Synchronise) => (&SYNCHRONISE, self.synchronise),
            (Widths::Any, _) | (Widths::Listed, Stage::Target | Stage::Decode) => return &[],
        };
        // A window fits everywhere.
        &list[..list.partition_point(|&width| width <= limit).max(1)]
    }

    /// How many of `waiting` tasks of a stage the next batch takes; the others are left for the batches after it.
    pub fn next(&self, stage: Stage, waiting: usize) -> usize {
        let widths = self.widths(stage);
        if widths.is_empty() { self.of(stage) } else { widest_part(waiting, widths) }.min(waiting)
    }

    /// How many tasks are computed for a batch of `tasks`: if its width is not listed, some are computed twice.
    pub fn padded(&self, stage: Stage, tasks: usize) -> usize {
        let widths = self.widths(stage);
        widths.iter().copied().find(|&width| width >= tasks).unwrap_or(tasks)
    }
}

/// The widest of the batches that together compute `waiting` tasks at the least cost. Of several ways it is the one
/// whose widest batch is the narrowest: equal parts.
fn widest_part(waiting: usize, widths: &[usize]) -> usize {
    let max = widths[widths.len() - 1];
    if waiting >= 2 * max {
        return max;
    }
    // For each number of tasks the least cost, and the widest batch.
    let mut best = vec![(0, 0)];
    for tasks in 1..=waiting {
        let with = |&width: &usize| {
            let (cost, widest) = best[tasks - width.min(tasks)];
            (cost + width + BATCH, width.max(widest))
        };
        best.push(widths.iter().map(with).min().expect("a list of widths is not empty"));
    }
    best[waiting].1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits on a GPU.
    const fn listed(denoise: usize, synchronise: usize) -> Limits {
        let strip = Decoder::STRIP;
        let checkpointing = Checkpointing::Off;
        Limits { denoise, synchronise, checkpointing, widths: Widths::Listed, strip, kept: 0 }
    }

    /// The widths of the batches that compute a number of tasks.
    fn parts(limits: Limits, stage: Stage, mut tasks: usize) -> Vec<usize> {
        let mut parts = Vec::new();
        while tasks > 0 {
            let next = limits.next(stage, tasks);
            parts.push(limits.padded(stage, next));
            tasks -= next;
        }
        parts
    }

    #[test]
    fn parts_are_of_equal_size() {
        let synchronise = |limit, tasks| parts(listed(26, limit), Stage::Synchronise, tasks);
        assert_eq!(synchronise(12, 12), [12]);
        assert_eq!(synchronise(8, 12), [6, 6], "and not 8 + 4");
        assert_eq!(synchronise(12, 20), [12, 4, 4]);
        assert_eq!(synchronise(3, 3), [1, 1, 1], "four do not fit");
        let denoise = |limit, tasks| parts(listed(limit, 12), Stage::Denoise, tasks);
        assert_eq!(denoise(26, 13), [13]);
        assert_eq!(denoise(26, 12), [13], "one is computed twice");
        assert_eq!(denoise(26, 21), [13, 8]);
        assert_eq!(denoise(26, 441)[..16], [26; 16]);
        assert_eq!(denoise(20, 26), [13, 13]);
        assert_eq!(denoise(26, 1), [1]);
    }

    #[test]
    fn every_width_is_listed_and_little_is_computed_twice() {
        for stage in [Stage::Denoise, Stage::Synchronise] {
            for limit in 1..30 {
                let limits = listed(limit, limit);
                let widths = limits.widths(stage);
                assert!(widths.iter().all(|&width| width <= limit), "{widths:?}");
                for tasks in 1..450 {
                    let parts = parts(limits, stage, tasks);
                    let computed: usize = parts.iter().sum();
                    assert!(parts.iter().all(|part| widths.contains(part)), "{parts:?}");
                    assert!(computed >= tasks && computed <= tasks + BATCH * 2, "{tasks} in {parts:?}");
                }
            }
        }
    }

    #[test]
    fn without_a_list_a_batch_takes_what_there_is() {
        let limits = Limits { denoise: 8, synchronise: 2, ..Limits::default() };
        assert_eq!(parts(limits, Stage::Denoise, 21), [8, 8, 5]);
        assert_eq!(parts(limits, Stage::Synchronise, 3), [2, 1]);
        assert_eq!(parts(Limits { widths: Widths::Listed, ..limits }, Stage::Decode, 2), [1, 1]);
        assert!(limits.widths(Stage::Denoise).is_empty());
    }
}
