//! The server, seen from outside, with the stand-in worker.

mod abandoned;
mod access;
mod bounds;
mod buckets;
mod contract;
mod disk;
mod doctor;
mod doors;
mod endings;
mod evaluate;
mod events;
mod files;
mod generate;
mod hostile;
mod idempotence;
mod killing;
mod load;
mod outgoing;
mod parting;
mod queue;
mod telemetry;
mod texts;
mod unstored;
mod uploads;
mod webhooks;
mod workers;
