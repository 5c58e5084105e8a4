//! Black-box tests of the built binaries: what starts them, talks to them and listens for them.
//!
//! The tests know our programs from outside only. [`Server`] is a running `syncdiffusion serve` with the stand-in worker, on a port and
//! with a data folder of its own, so tests run side by side. [`Receiver`] is a server that webhooks are sent to.

mod receiver;
mod server;

pub use receiver::{Receiver, Sent};
pub use server::{Answer, Server, binary, stand_in};
