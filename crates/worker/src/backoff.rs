//! Batches that did not fit: the same tasks again, fewer at once.

use panorama::{Checkpointing, Limits, Stage};

use crate::failure::{is_ambiguous, is_out_of_memory};

/// The smallest strip that a picture is decoded in: 16 MiB in fp32.
const MIN_STRIP: i64 = 1 << 22;

/// Computes all of `tasks`, which are of one stage, and returns the results in order. Where memory runs out, the limits
/// of the stage are lowered, and stay so, and the rest is tried again. Where that is in doubt, they are lowered once
/// for a batch, and raised again if that did not help.
///
/// # Errors
/// The error of `compute`, if that was another, or if a single task does not fit even with gradient checkpointing.
pub(crate) fn in_parts<T, R>(
    limits: &mut Limits,
    stage: Stage,
    tasks: &[T],
    mut compute: impl FnMut(Limits, &[T]) -> Result<Vec<R>, String>,
) -> Result<Vec<R>, String> {
    let mut results = Vec::with_capacity(tasks.len());
    // A batch may be wider than the limit only before the limit was lowered.
    let mut width = tasks.len();
    let mut before_doubt = None;
    while results.len() < tasks.len() {
        let rest = &tasks[results.len()..];
        let part = &rest[..width.min(rest.len())];
        match compute(*limits, part) {
            Ok(more) => results.extend(more),
            Err(error) => {
                let doubted = is_ambiguous(&error);
                let again = is_out_of_memory(&error) && !(doubted && before_doubt.is_some());
                let Some(lower) = again.then(|| lowered(*limits, stage, part.len())).flatten() else {
                    if let Some(before) = before_doubt.filter(|_| doubted) {
                        *limits = before;
                    }
                    return Err(error);
                };
                if doubted {
                    before_doubt = Some(*limits);
                }
                tracing::warn!(from = ?*limits, to = ?lower, "a batch did not fit: {error}");
                *limits = lower;
                width = lower.of(stage);
            }
        }
    }
    Ok(results)
}

/// Limits that take less memory than a batch of `failed` tasks did, if there are any.
fn lowered(limits: Limits, stage: Stage, failed: usize) -> Option<Limits> {
    let half = failed / 2;
    match stage {
        Stage::Denoise if half > 0 => Some(Limits { denoise: half, ..limits }),
        Stage::Synchronise if half > 0 => Some(Limits { synchronise: half, ..limits }),
        Stage::Synchronise if limits.checkpointing == Checkpointing::Off => {
            Some(Limits { checkpointing: Checkpointing::On, ..limits })
        }
        Stage::Decode if limits.strip >= 2 * MIN_STRIP => Some(Limits { strip: limits.strip / 2, ..limits }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use panorama::Widths;

    use super::*;

    const WIDE: Limits = Limits {
        denoise: 26,
        synchronise: 8,
        checkpointing: Checkpointing::Off,
        widths: Widths::Any,
        strip: 4 * MIN_STRIP,
        kept: 0,
    };

    /// A device that fits `fits` tasks at once, and `checkpointed` with gradient checkpointing.
    fn device(fits: usize, checkpointed: usize) -> impl FnMut(Limits, &[u32]) -> Result<Vec<u32>, String> {
        move |limits, tasks| {
            let fits = if limits.checkpointing == Checkpointing::On { checkpointed } else { fits };
            if tasks.len() <= fits {
                Ok(tasks.iter().map(|task| task * 10).collect())
            } else {
                Err("CUDA out of memory. Tried to allocate 2.00 GiB".to_owned())
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_tried_in_parts_and_remembered() {
        let tasks: Vec<u32> = (0..26).collect();
        let expected: Vec<u32> = tasks.iter().map(|task| task * 10).collect();
        let mut limits = WIDE;
        assert_eq!(in_parts(&mut limits, Stage::Denoise, &tasks, device(7, 7)), Ok(expected));
        assert_eq!(limits, Limits { denoise: 6, ..WIDE });
    }

    #[test]
    fn a_gradient_is_checkpointed_before_it_fails() {
        let mut limits = WIDE;
        assert_eq!(in_parts(&mut limits, Stage::Synchronise, &[1, 2, 3], device(0, 1)), Ok(vec![10, 20, 30]));
        assert_eq!(limits, Limits { synchronise: 1, checkpointing: Checkpointing::On, ..WIDE });
        let error = in_parts(&mut limits, Stage::Synchronise, &[1, 2, 3], device(0, 0)).unwrap_err();
        assert!(error.contains("out of memory"), "{error}");
    }

    /// What cuDNN says may be about memory, and may not.
    #[test]
    fn an_ambiguous_failure_is_tried_again_once() {
        let no_engine = "FIND was unable to find an engine to execute this computation";
        let mut calls = Vec::new();
        let mut limits = WIDE;
        let failed = in_parts(&mut limits, Stage::Denoise, &[1; 26], |_, tasks: &[u32]| -> Result<Vec<u32>, String> {
            calls.push(tasks.len());
            Err(no_engine.to_owned())
        });
        assert_eq!((failed, calls, limits), (Err(no_engine.to_owned()), vec![26, 13], WIDE));
        let fits = |_, tasks: &[u32]| if tasks.len() < 26 { Ok(tasks.to_vec()) } else { Err(no_engine.to_owned()) };
        assert_eq!(in_parts(&mut limits, Stage::Denoise, &[1; 26], fits), Ok(vec![1; 26]));
        assert_eq!(limits, Limits { denoise: 13, ..WIDE });
    }

    #[test]
    fn a_picture_is_decoded_in_smaller_strips_before_it_fails() {
        let in_strips = |limits: Limits, tasks: &[u32]| {
            if limits.strip > 2 * MIN_STRIP { Err("out of memory".to_owned()) } else { Ok(tasks.to_vec()) }
        };
        let mut limits = WIDE;
        assert_eq!(in_parts(&mut limits, Stage::Decode, &[1], in_strips), Ok(vec![1]));
        assert_eq!(limits, Limits { strip: 2 * MIN_STRIP, ..WIDE });
        assert!(in_parts(&mut limits, Stage::Decode, &[1], device(0, 0)).is_err());
        assert_eq!(limits, Limits { strip: MIN_STRIP, ..WIDE });
    }

    #[test]
    fn other_failures_are_returned_at_once() {
        let mut limits = WIDE;
        let mut calls = 0;
        let failed = in_parts(&mut limits, Stage::Denoise, &[1, 2], |_, _: &[u32]| -> Result<Vec<u32>, String> {
            calls += 1;
            Err("shape '[3]' is invalid".to_owned())
        });
        assert_eq!((failed.is_err(), calls, limits), (true, 1, WIDE));
    }
}
