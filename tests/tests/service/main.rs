//! The server, seen from outside, with the stand-in worker.

mod contract;
mod doctor;
mod doors;
mod endings;
mod events;
mod generate;
mod hostile;
mod idempotence;
mod killing;
mod load;
mod queue;
mod telemetry;
mod uploads;
mod webhooks;
mod workers;
