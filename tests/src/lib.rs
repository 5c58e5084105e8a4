//! Helpers of the black-box tests: a running server, and the servers that it calls.
//!
//! The tests see the programs from outside only. [`Server`] is a running `syncdiffusion serve` with the stand-in
//! worker; each has its own port and data folder, so tests run in parallel. [`Receiver`] receives webhooks and
//! pictures, [`Bucket`] stands in for an S3-compatible store, [`Database`] is a private PostgreSQL, and [`hub`] is a
//! model hub.

mod bucket;
mod database;
mod dice;
pub mod hub;
mod receiver;
mod server;

pub use bucket::Bucket;
pub use database::Database;
pub use dice::Dice;
pub use receiver::{Receiver, Sent};
pub use server::{Answer, Server, binary, stand_in};

/// The addresses of the scripts, styles and images that a page names, as they are written.
pub fn files_of(page: &str) -> Vec<String> {
    let addresses = page.split(['"', '\'']).filter(|text| text.contains("page/") && !text.contains(['<', ' ']));
    addresses.map(str::to_owned).collect()
}
