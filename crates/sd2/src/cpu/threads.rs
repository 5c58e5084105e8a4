//! Threads for kernels: as many as libtorch would use, if a map is large enough.

use std::thread;

/// Numbers of a map that are worth one more thread.
const MIN_NUMBERS_PER_THREAD: usize = 1 << 18;

/// How many threads to use for a map of `len` numbers.
pub(super) fn threads_for(len: usize) -> usize {
    if len < MIN_NUMBERS_PER_THREAD { 1 } else { tch::get_num_threads().max(1) as usize }
}

/// Cuts a map into parts of whole pixels, one for each thread.
pub(super) fn parts<T>(map: &[T], channels: usize) -> impl Iterator<Item = &[T]> {
    map.chunks(part_len(map.len(), channels))
}

/// [`parts`], to be written.
pub(super) fn parts_mut<T>(map: &mut [T], channels: usize) -> impl Iterator<Item = &mut [T]> {
    map.chunks_mut(part_len(map.len(), channels))
}

fn part_len(len: usize, channels: usize) -> usize {
    (len / channels).div_ceil(threads_for(len)).max(1) * channels
}

/// Works on each part in a thread of its own, on the last one in this thread. Returns the results in order.
pub(super) fn for_each<P: Send, R: Send>(parts: impl Iterator<Item = P>, work: impl Fn(P) -> R + Sync) -> Vec<R> {
    let mut parts: Vec<P> = parts.collect();
    let last = parts.pop();
    thread::scope(|scope| {
        let others: Vec<_> = parts.into_iter().map(|part| scope.spawn(|| work(part))).collect();
        let last = last.map(&work);
        others.into_iter().map(|other| other.join().expect("arithmetic does not panic")).chain(last).collect()
    })
}
