//! The worker as its server sees it: a process that speaks frames.

mod jobs;
mod models;
mod range;
mod worker;
