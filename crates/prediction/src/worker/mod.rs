//! Workers seen from the server: processes that speak the [protocol](protocol).

mod process;

pub use process::{Message, Program, Worker};
