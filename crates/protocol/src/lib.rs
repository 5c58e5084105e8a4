//! The protocol between the server and its workers.
//!
//! A worker is a process. The server writes [`Command`]s to its stdin and reads [`Event`]s from its stdout, each as
//! one [frame]: a line of JSON, followed by raw bytes if the line announces them. The stderr of a worker is its log.
//!
//! An [`Input`] is not checked here; whoever builds one must do that.

pub mod frame;
mod input;
mod message;

pub use input::{Blend, Format, Input, Scheduler, SyncMode};
pub use message::{Command, Event, Figures, Given, Model, Net, Stage, Windows, Work};
