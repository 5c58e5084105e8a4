//! What the rooms of other APIs share: the body as bytes or as a form, sizes that the model cannot draw, names of
//! inputs, pictures that are asked for together, and answers that take longer than clients wait.

mod body;
mod fit;
pub(super) mod form;
mod late;
mod names;
mod order;
mod picture;
mod pictures;
mod scalar;

pub(super) use body::Raw;
pub(super) use fit::fit;
pub(super) use form::Form;
pub(super) use late::answer;
pub(super) use names::Names;
pub(super) use order::{Ended, Order, end, ended, id};
pub(super) use picture::base64;
pub(super) use pictures::{Picture, Pictures};
pub(super) use scalar::{MAX_TEXT, Scalar};

/// A seed where none is asked for. 32 bits, so that every client can represent it.
pub(super) fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u128() as u64 & u64::from(u32::MAX)
}
