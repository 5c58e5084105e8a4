//! The bridge between the service tower and the tensor tower.
//!
//! A worker is a process. The server writes [`Command`]s to its stdin and reads [`Event`]s from its stdout, each as
//! one [frame]: a line of JSON, followed by raw bytes where the line announces them. What a worker
//! writes to stderr is log.
//!
//! Nothing here checks an [`Input`]; whoever builds one vouches for it.

pub mod frame;
mod input;
mod message;

pub use input::Input;
pub use message::{Command, Event, Model, Stage, Work};
