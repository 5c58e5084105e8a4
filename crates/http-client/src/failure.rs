//! One failed attempt.

use std::time::Duration;

/// An attempt that failed, and whether another may succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<E> {
    /// What went wrong.
    pub error: E,
    /// Whether the same request may succeed later.
    pub transient: bool,
    /// How long the server asks to wait before the next attempt.
    pub retry_after: Option<Duration>,
}

impl<E> Failure<E> {
    /// A failure that repeats itself.
    pub fn permanent(error: E) -> Self {
        Self { error, transient: false, retry_after: None }
    }

    /// A failure that may pass.
    pub fn transient(error: E) -> Self {
        Self { error, transient: true, retry_after: None }
    }
}
