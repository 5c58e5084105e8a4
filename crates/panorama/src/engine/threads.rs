//! Windows side by side on the cores of a CPU.
//!
//! libtorch splits every operation over its threads and waits for all of them after each, thousands of times for a
//! window. Windows do not depend on each other, so each core can compute windows of its own from beginning to end
//! instead, and no thread waits for another. A single window, and the picture at the end, are left to libtorch's way;
//! only then does it get more than one thread, because those it has wait for their next operation by burning time.

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The threads of an engine.
pub(crate) struct Threads {
    pool: Option<ThreadPool>,
}

impl Threads {
    /// `count` threads; with one, everything is computed on the calling thread.
    ///
    /// # Panics
    /// If the system does not start that many threads.
    pub(crate) fn new(count: usize) -> Self {
        let pool = (count > 1).then(|| {
            let pool = ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("windows-{i}"));
            let pool = pool.build().expect("the system starts as many threads as there are cores");
            pool.broadcast(|_| tch::set_num_threads(1));
            pool
        });
        tch::set_num_threads(1);
        Self { pool }
    }

    /// Number of threads; at least 1.
    pub(crate) fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, ThreadPool::current_num_threads)
    }

    /// Computes one thing in libtorch's way, with all threads for each operation.
    pub(crate) fn together<R>(&self, compute: impl FnOnce() -> R) -> R {
        struct One;
        impl Drop for One {
            fn drop(&mut self) {
                tch::set_num_threads(1);
            }
        }
        // The number is that of the calling thread; it is put back even if libtorch fails.
        let _one = One;
        tch::set_num_threads(self.count() as i32);
        compute()
    }

    /// Computes parts of `items` side by side, up to `part` each, and returns the results in order.
    pub(crate) fn map<T: Sync, R: Send>(&self, items: &[T], part: usize, compute: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
        let parts: Vec<&[T]> = items.chunks(part.max(1)).collect();
        match &self.pool {
            Some(pool) if parts.len() > 1 => {
                pool.install(|| parts.into_par_iter().with_max_len(1).map(&compute).collect())
            }
            _ => self.together(|| parts.into_iter().map(compute).collect()),
        }
    }
}
