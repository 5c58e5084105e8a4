//! Windows side by side on the cores of a CPU.
//!
//! libtorch splits every operation over its threads and waits for all of them after each, thousands of times for a
//! window. Windows do not know of each other, so each core can compute windows of its own from beginning to end
//! instead, and nobody waits for anybody. A single window, and the picture at the end, are left to libtorch's way;
//! only then does it get more than one thread, because those it has wait for their next operation by burning time.

use rayon::{
    ThreadPool, ThreadPoolBuilder,
    iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator},
};

/// The threads of an engine.
pub(crate) struct Threads {
    pool: Option<ThreadPool>,
}

impl Threads {
    /// `count` threads; with one, everything is computed where it is asked for.
    ///
    /// # Panics
    /// If the system does not give that many threads.
    pub(crate) fn new(count: usize) -> Self {
        let pool = (count > 1).then(|| {
            let pool = ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("windows-{i}"));
            let pool = pool.build().expect("the system gives as many threads as there are cores");
            pool.broadcast(|_| tch::set_num_threads(1));
            pool
        });
        tch::set_num_threads(1);
        Self { pool }
    }

    /// How many there are.
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
        // The number is one of the calling thread; it is put back even if libtorch fails.
        let _one = One;
        tch::set_num_threads(self.count() as i32);
        compute()
    }

    /// Computes parts of `items` side by side, of up to `part` each, and gives the results in order.
    pub(crate) fn map<T, R: Send>(&self, items: &[T], part: usize, compute: impl Fn(&[T]) -> R) -> Vec<R> {
        let parts: Vec<&[T]> = items.chunks(part.max(1)).collect();
        match &self.pool {
            Some(pool) if parts.len() > 1 => {
                let (compute, parts) = (Shared(&compute), Shared(&parts));
                let count = parts.get().len();
                pool.install(|| {
                    (0..count).into_par_iter().with_max_len(1).map(|i| compute.get()(parts.get()[i])).collect()
                })
            }
            _ => self.together(|| parts.into_iter().map(compute).collect()),
        }
    }
}

/// Something that several threads read.
struct Shared<'a, T: ?Sized>(&'a T);

impl<T: ?Sized> Shared<'_, T> {
    fn get(&self) -> &T {
        self.0
    }
}

// Tensors are not `Sync` because they can be written to through a shared reference. What is shared here, the networks
// and the tasks, is only read, which libtorch allows from any number of threads; and the reference counts of the tasks
// are not touched, since tasks are only borrowed.
#[expect(unsafe_code, reason = "see above")]
unsafe impl<T: ?Sized> Sync for Shared<'_, T> {}
