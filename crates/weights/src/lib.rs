//! The files of a model: from a hub into a bundle folder, checked; and checking them again.
//!
//! ```text
//! Source -> Hub::listing -> plan -> download (4 at a time) -> perceptual -> weights.lock
//! ```
//!
//! - [`Source`]: a repository and a revision of it; [`Hub`]: what a hub tells and gives, the token, the patience.
//! - [`fetch`]: all of it, in order; [`Order`] says what, [`Progress`] hears how far it is.
//! - [`Lock`]: what a bundle consists of and where it came from; [`verify`]: whether that still holds;
//!   [`inspect`]: whether it looks as if it does.
//! - [`Home`]: where bundles are, and which one a name means.
//!
//! What always holds: a file has its final name only when its content has the hash that the hub told; a bundle has a
//! `weights.lock` only when all its files are there; what was received before an interruption is not received again.
//! Only `.safetensors` are fetched: the other formats can run code.
//!
//! The process must have installed a provider of cryptography for rustls before a [`Hub`] is made.

mod disk;
mod download;
mod error;
mod fetch;
mod hash;
mod hub;
mod inspect;
mod lock;
mod perceptual;
mod place;
mod plan;
mod progress;
mod source;

pub use error::{Error, Result};
pub use fetch::{Fetched, Order, fetch};
pub use hash::Hash;
pub use hub::{ENDPOINT, Hub, Listed, Listing, Patience};
pub use inspect::{Inspection, inspect};
pub use lock::{Difference, Entry, LOCK, Lock, Origin, verify};
pub use place::Home;
pub use plan::Variant;
pub use progress::{News, Progress};
pub use source::{PERCEPTUAL, SD2, Source};
