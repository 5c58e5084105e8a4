//! The server, seen from outside, with the stand-in worker.

mod buckets;
mod contract;
mod endings;
mod events;
mod files;
mod generate;
mod idempotence;
mod killing;
mod load;
mod outgoing;
mod queue;
mod uploads;
mod webhooks;
mod workers;
