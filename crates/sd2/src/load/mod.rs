//! Loading a model: its files, its configurations and its weights.

pub(crate) mod bundle;
mod bytes;
pub(crate) mod config;
pub(crate) mod error;
mod files;
mod fingerprint;
mod header;
mod lora;
mod misfit;
mod missing;
pub(crate) mod problem;
pub(crate) mod single_file;
pub(crate) mod weights;

pub use self::bundle::Bundle;
pub use self::error::{Error, Result};
pub use self::single_file::Said;
