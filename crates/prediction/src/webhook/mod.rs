//! Webhooks, compatible with Cog: the events start, output, logs and completed, each a POST of the whole prediction.
//!
//! - Filter: a client subscribes to a URL and to some of the events ([`subscription`]).
//! - Signatures as Standard Webhooks and Replicate define them ([`signature`]), and a bearer token if the operator
//!   wants one.
//! - Throttling: `logs` is sent at most once an interval; what gathers in between is sent when the interval ends.
//! - Retries: only `completed`, with exponential back-off and jitter, for about a day; `Retry-After` is honoured.
//! - Transactional outbox: the store keeps the end of a prediction and "its webhook is pending" in one transaction, and
//!   the mark goes when a receiver has accepted or refused the webhook. So the end of the process loses nothing. A
//!   webhook may arrive twice, always with the same `webhook-id`.
//!
//! `sender` decides what is sent and when, `transport` makes one attempt.

mod sender;
pub mod signature;
pub mod subscription;
mod transport;

pub use sender::Options;
pub(crate) use sender::WebhookSender;
pub use subscription::{EventKind, Translate, Webhook};
