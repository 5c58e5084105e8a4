//! Workers seen from the server: processes that speak the [protocol].

mod child;
mod process;

pub use process::{Message, Program, Worker, picture_bytes, secrets};
