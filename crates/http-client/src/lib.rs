//! What every outgoing HTTP call needs, whoever makes it.
//!
//! - [`Failure`]: an attempt that failed, and whether another may succeed;
//! - [`reason()`], [`causes`], [`has_cause`]: why a request failed, in words and by type;
//! - [`retry_after()`]: how long a server asks to wait;
//! - [`RetryPolicy`], [`Retries`]: exponential back-off.
//!
//! Nothing here makes requests or waits: that, and what a status means, is for the caller to decide.

mod failure;
mod reason;
mod retry;
mod retry_after;

pub use failure::Failure;
pub use reason::{causes, has_cause, reason};
pub use retry::{Retries, RetryPolicy};
pub use retry_after::retry_after;

/// The `User-Agent` of every request.
pub const USER_AGENT: &str = concat!("syncdiffusion/", env!("CARGO_PKG_VERSION"));
