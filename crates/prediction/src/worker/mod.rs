//! Workers seen from the server: processes that speak the [protocol].

mod process;

pub use process::{Message, Program, Worker};
