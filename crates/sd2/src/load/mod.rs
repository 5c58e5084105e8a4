//! Loading a model: its files, its configurations and its weights.

pub(crate) mod bundle;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod weights;

pub use self::bundle::Bundle;
pub use self::error::{Error, Result};
