//! Parsing: JSON becomes a [`protocol::Input`], or every reason why it cannot.
//!
//! [`table`] lists the inputs once; the validator, the OpenAPI document, the command line and the documents
//! read it. [`validate`] applies it in the words of Cog 0.23, and adds what the algorithm requires of a [`geometry`],
//! which the original asserts only after work has begun.
//!
//! What always holds: an `Input` that leaves this module can be drawn by a model of the geometry it was checked
//! against.

pub(crate) mod data_uri;
pub mod fitted;
mod given;
pub mod schema;
pub mod table;
pub mod validate;

pub use data_uri::MAX_PICTURE;
pub use geometry::Geometry;
pub use given::{Given, Sent};
pub use table::{Default, Field, HOSTED, Kind, TABLE};
pub use validate::{Invalid, Parsed, integer, parse};

use protocol::Model;

/// The geometry of a model that a worker has loaded.
pub fn geometry_of(model: &Model) -> Geometry {
    Geometry { window: model.window, vae_factor: model.vae_factor }
}
