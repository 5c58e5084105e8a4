//! Batches that did not fit: the same tasks again, fewer at once.

use panorama::{Kind, Limits};

/// Computes all of `tasks`, in order. Where memory runs out the limits of their kind are lowered, for good, and what is left
/// is tried again.
///
/// # Errors
/// What `compute` said, if that was something else or if a single task in its thriftiest way does not fit.
pub(crate) fn in_parts<T, R>(
    limits: &mut Limits,
    kind: Kind,
    tasks: &[T],
    mut compute: impl FnMut(Limits, &[T]) -> Result<Vec<R>, String>,
) -> Result<Vec<R>, String> {
    let mut results = Vec::with_capacity(tasks.len());
    // A batch may be wider than the limit only before the limit was lowered.
    let mut width = tasks.len();
    while results.len() < tasks.len() {
        let left = &tasks[results.len()..];
        let part = &left[..width.min(left.len())];
        match compute(*limits, part) {
            Ok(more) => results.extend(more),
            Err(error) => {
                let Some(lower) = is_out_of_memory(&error).then(|| lowered(*limits, kind, part.len())).flatten() else {
                    return Err(error);
                };
                tracing::warn!(from = ?*limits, to = ?lower, "a batch did not fit: {error}");
                *limits = lower;
                width = lower.of(kind);
            }
        }
    }
    Ok(results)
}

/// Limits that take less than a batch of so many tasks of a kind did, if there are any.
fn lowered(limits: Limits, kind: Kind, failed: usize) -> Option<Limits> {
    let half = failed / 2;
    match kind {
        Kind::Denoise if half > 0 => Some(Limits { denoise: half, ..limits }),
        Kind::Synchronise if half > 0 => Some(Limits { synchronise: half, ..limits }),
        Kind::Synchronise if !limits.thrifty => Some(Limits { thrifty: true, ..limits }),
        _ => None,
    }
}

/// Whether libtorch failed because there was no memory, on a GPU or on a CPU.
pub(crate) fn is_out_of_memory(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    ["out of memory", "can't allocate memory", "not enough memory", "alloc_failed"]
        .iter()
        .any(|words| error.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Limits = Limits { denoise: 26, synchronise: 8, thrifty: false };

    /// A device that fits so many tasks at once.
    fn device(fits: usize, thrifty_fits: usize) -> impl FnMut(Limits, &[u32]) -> Result<Vec<u32>, String> {
        move |limits, tasks| {
            if tasks.len() <= if limits.thrifty { thrifty_fits } else { fits } {
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
        assert_eq!(in_parts(&mut limits, Kind::Denoise, &tasks, device(7, 7)), Ok(expected));
        assert_eq!(limits, Limits { denoise: 6, ..WIDE });
    }

    #[test]
    fn a_gradient_becomes_thrifty_before_it_fails() {
        let mut limits = WIDE;
        assert_eq!(in_parts(&mut limits, Kind::Synchronise, &[1, 2, 3], device(0, 1)), Ok(vec![10, 20, 30]));
        assert_eq!(limits, Limits { synchronise: 1, thrifty: true, ..WIDE });
        let error = in_parts(&mut limits, Kind::Synchronise, &[1, 2, 3], device(0, 0)).unwrap_err();
        assert!(error.contains("out of memory"), "{error}");
    }

    #[test]
    fn other_failures_are_told_at_once() {
        let mut limits = WIDE;
        let mut calls = 0;
        let failed = in_parts(&mut limits, Kind::Denoise, &[1, 2], |_, _: &[u32]| -> Result<Vec<u32>, String> {
            calls += 1;
            Err("shape '[3]' is invalid".to_owned())
        });
        assert_eq!((failed.is_err(), calls, limits), (true, 1, WIDE));
    }

    #[test]
    fn the_words_of_libtorch_are_known() {
        for words in [
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "[enforce fail at alloc_cpu.cpp:125] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
            "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ] {
            assert!(is_out_of_memory(words), "{words}");
        }
        assert!(!is_out_of_memory("CUDA error: an illegal memory access was encountered"));
    }
}
