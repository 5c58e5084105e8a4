//! The server, seen from outside, with the stand-in worker.

mod contract;
mod endings;
mod events;
mod generate;
mod idempotence;
mod killing;
mod load;
mod queue;
mod uploads;
mod webhooks;
mod workers;
