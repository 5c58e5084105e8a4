//! The service: what happens to a prediction between the request and the answer.
//!
//! ```text
//! JSON -> input -> service::intake -> Store + queue -> service::dispatch ==> worker::process
//!   response . stream . webhook <- feed <- active <- service::finish <- service::events <== its messages
//! ```
//!
//! - [`input`]: the table of the inputs, and the way from JSON to a valid one.
//! - [`wire`]: the prediction as everybody sees it; [`feed`]: what happens to it, in order.
//! - `lifecycle`: the phases of a prediction; `active`: one that has not ended.
//! - [`service`]: who accepts it, who works on it, how it ends; [`store`]: where it is kept.
//! - [`preview`]: how far a prediction is, in small, for those who watch.
//! - [`given_pictures`]: pictures that come in, from a URL or a file to RGB.
//! - [`output`]: from RGB to a PNG; [`upload`]: where it goes; [`webhook`]: who is notified; [`outgoing`]: which URLs
//!   may be called.
//! - [`bucket`]: objects in an S3-compatible store, for whoever has pictures there.
//! - [`client_files`]: what clients upload to use as inputs; [`capability`]: names that nobody can guess.
//! - [`worker`]: the processes; `progress`, `cost`: what their names say.
//!
//! No tensors and no HTTP server live here.

mod active;
pub mod bucket;
pub mod capability;
pub mod client_files;
mod cost;
pub mod feed;
mod files;
pub mod given_pictures;
pub mod input;
mod lifecycle;
mod mutex;
pub mod outgoing;
pub mod output;
pub mod preview;
mod progress;
mod random;
pub mod redacted;
pub mod service;
pub mod shown;
pub mod store;
mod time;
pub mod upload;
pub mod webhook;
pub mod wire;
pub mod worker;

pub use service::Service;
pub use time::Time;
pub use wire::{Prediction, Status};

/// Makes `ring` the cryptography of this process; false if one was chosen before. Webhooks over `https` need it.
pub fn install_crypto() -> bool {
    rustls::crypto::ring::default_provider().install_default().is_ok()
}
