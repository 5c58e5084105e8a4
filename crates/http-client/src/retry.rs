//! When to try again: exponential back-off, and never sooner than the server asks for.

use std::time::Duration;

use crate::failure::Failure;

/// How often to try, and how long to wait in between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in a row that may fail, the first included.
    pub max_attempts: u32,
    /// The wait after the first failed attempt; each is twice the one before.
    pub first_wait: Duration,
    /// Where the doubling ends.
    pub max_wait: Duration,
    /// The largest part of a wait that is added at random, so that many clients do not come back at the same moment.
    pub jitter: f64,
    /// The longest wait that a server may ask for; if it asks for more, there is no further attempt.
    pub max_retry_after: Duration,
}

impl RetryPolicy {
    /// The wait after this number of failed attempts in a row.
    fn wait(&self, failed: u32) -> Duration {
        let doublings = failed.saturating_sub(1).min(31);
        let wait = self.first_wait.saturating_mul(1 << doublings).min(self.max_wait);
        wait.mul_f64(1.0 + self.jitter * fastrand::f64())
    }
}

/// Counts failed attempts in a row.
#[derive(Clone, Debug)]
pub struct Retries {
    policy: RetryPolicy,
    failed: u32,
}

impl Retries {
    /// Starts to count.
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, failed: 0 }
    }

    /// An attempt got further than those before it: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.failed = 0;
    }

    /// How many attempts have failed in a row.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Counts a failed attempt. How long to wait before the next one; `None` to give up.
    pub fn next_wait<E>(&mut self, failure: &Failure<E>) -> Option<Duration> {
        self.failed += 1;
        let asked = failure.retry_after.unwrap_or_default();
        let again = failure.transient && self.failed < self.policy.max_attempts && asked <= self.policy.max_retry_after;
        again.then(|| self.policy.wait(self.failed).max(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const POLICY: RetryPolicy = RetryPolicy {
        max_attempts: 5,
        first_wait: SECOND,
        max_wait: Duration::from_secs(3),
        jitter: 0.0,
        max_retry_after: Duration::from_mins(1),
    };

    fn asking(seconds: u64) -> Failure<()> {
        Failure { retry_after: Some(Duration::from_secs(seconds)), ..Failure::transient(()) }
    }

    #[test]
    fn waits_double_up_to_a_limit_and_end() {
        let mut retries = Retries::new(POLICY);
        let waits: Vec<_> = (0..6).map(|_| retries.next_wait(&Failure::transient(()))).collect();
        assert_eq!(waits, [Some(SECOND), Some(2 * SECOND), Some(3 * SECOND), Some(3 * SECOND), None, None]);
        retries.reset();
        assert_eq!(retries.next_wait(&Failure::transient(())), Some(SECOND));
        assert_eq!(Retries::new(POLICY).next_wait(&Failure::permanent(())), None);
    }

    #[test]
    fn a_server_is_given_the_time_that_it_asks_for_within_bounds() {
        let mut retries = Retries::new(POLICY);
        assert_eq!(retries.next_wait(&asking(60)), Some(60 * SECOND));
        assert_eq!(retries.next_wait(&asking(0)), Some(2 * SECOND), "not sooner than without it");
        assert_eq!(retries.next_wait(&asking(61)), None);
    }

    #[test]
    fn jitter_adds_a_part_of_the_wait() {
        let policy = RetryPolicy { jitter: 0.25, ..POLICY };
        for _ in 0..100 {
            assert!((SECOND..=SECOND * 5 / 4).contains(&policy.wait(1)));
        }
        assert!((3 * SECOND..=SECOND * 15 / 4).contains(&policy.wait(u32::MAX)));
    }
}
