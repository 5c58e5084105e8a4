//! Workers seen from the server: a [process] that speaks the protocol, and the [supervisor](supervise) that keeps one alive.

pub mod process;
pub(crate) mod supervise;

pub use process::{Heard, Program, Worker};
