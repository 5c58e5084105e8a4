//! Batches that a device was given and may not have computed yet.
//!
//! A GPU is given its work and the call returns, so that there is more for it to do when it is done. How long a batch
//! took, and whether its numbers are finite, is known later. So that a cancel need not wait for more than it must, and
//! memory does not pile up, the process is at most one batch ahead: before it goes on, it waits for the batch before
//! the last. A CPU is done when the call returns.

use std::collections::VecDeque;

/// Batches, the oldest first.
pub(crate) struct Pending<B> {
    batches: VecDeque<B>,
    /// How many batches the device may have that it has not computed.
    lead: usize,
}

impl<B> Pending<B> {
    pub(crate) fn new(lead: usize) -> Self {
        Self { batches: VecDeque::new(), lead }
    }

    /// Adds a batch that the device was just given. Returns those to wait for, the oldest first: all of them, if the
    /// results of this one are needed at once.
    pub(crate) fn add(&mut self, batch: B, at_once: bool) -> Vec<B> {
        self.batches.push_back(batch);
        let lead = if at_once { 0 } else { self.lead };
        self.batches.drain(..self.batches.len().saturating_sub(lead)).collect()
    }

    /// Those that are left, the oldest first.
    pub(crate) fn rest(&mut self) -> Vec<B> {
        self.batches.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_one_batch_behind() {
        let mut pending = Pending::new(1);
        assert_eq!(pending.add('a', false), []);
        assert_eq!(pending.add('b', false), ['a']);
        assert_eq!(pending.add('c', false), ['b']);
        assert_eq!(pending.add('d', true), ['c', 'd']);
        assert_eq!(pending.add('e', false), []);
        assert_eq!((pending.rest(), pending.rest()), (vec!['e'], vec![]));
    }

    #[test]
    fn a_cpu_is_done_at_once() {
        let mut pending = Pending::new(0);
        assert_eq!(pending.add('a', false), ['a']);
        assert_eq!(pending.add('b', true), ['b']);
    }
}
