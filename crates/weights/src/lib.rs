//! The files of a model: from a hub into a bundle folder, checked; and checking them again.
//!
//! ```text
//! Source -> Hub::listing -> plan -> download (4 at a time) -> perceptual -> weights.lock
//! ```
//!
//! - [`Source`]: a repository and a revision of it; [`Hub`]: what a hub lists and sends, the token, the retries.
//! - [`fetch()`]: all of it, in order; [`FetchRequest`] says what, [`Progress`] receives how far it is.
//! - [`Lock`]: what a bundle consists of and where it came from; [`verify`]: whether that still holds;
//!   [`inspect()`]: whether it seems to, without reading every byte.
//! - [`Home`]: where bundles are, and which one a name refers to.
//!
//! What always holds: a file has its final name only when its content has the hash that the hub lists; a bundle has a
//! `weights.lock` only when all its files are complete; what was received before an interruption is not received again.
//! Only `.safetensors` are fetched: the other formats can run code.
//!
//! The process must have installed a provider of cryptography for rustls before a [`Hub`] is made.

mod disk;
mod download;
mod error;
mod fetch;
mod given;
mod hash;
mod hub;
mod inspect;
mod layout;
mod listing;
mod local;
mod lock;
mod perceptual;
mod place;
mod plan;
mod progress;
mod source;

pub use disk::free_space;
pub use error::{At, Error, Result};
pub use fetch::{FetchRequest, Fetched, fetch};
pub use hash::Hash;
pub use http_client::RetryPolicy;
pub use hub::{ENDPOINT, Hub, RETRIES};
pub use inspect::{Inspection, inspect};
pub use layout::LOCK;
pub use listing::{Listed, Listing};
pub use local::{copy_perceptual, fetch_perceptual, has_perceptual};
pub use lock::{Difference, Entry, Lock, Origin, verify};
pub use place::Home;
pub use plan::Variant;
pub use progress::{Progress, ProgressEvent};
pub use source::{PERCEPTUAL, SD2, Source};
