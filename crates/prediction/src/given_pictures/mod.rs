//! Pictures that requests give as inputs: how they are fetched, read and placed.
//!
//! A picture is received before its prediction is queued, and its file is stored beside it, as it came. So a
//! prediction draws the same whenever it begins, and nobody is asked twice. It is decoded once when it is received,
//! which finds all that is wrong with it, and again for each worker that gets it.
//!
//! What always holds: a picture is read off the async threads, and what is fetched and decoded at once is bounded in
//! sum (`room`); what a client says of its format is not believed.

mod decode;
mod fetch;
mod fitting;
mod given;
mod place;
mod room;

pub(crate) use decode::format_of;
pub use decode::{Pixels, decode};
pub use fitting::{Fill, Fitting};
pub use place::misplaced;

pub(crate) use decode::size;
pub(crate) use fetch::Unfetched;
pub(crate) use fitting::fitted;
pub(crate) use given::Given;
pub(crate) use room::PictureIntake;

use std::time::Duration;

use protocol::Input;
use ring::digest::{SHA256, digest};

/// How long a request waits for others before it is refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// There is no room beside the pictures of other requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The fields of an input that are pictures.
pub(crate) fn fields(input: &mut Input) -> [(&'static str, &mut Option<String>); 2] {
    [("anchor_image", &mut input.anchor_image), ("image", &mut input.image)]
}

/// The pictures that an input names: fields and URLs.
pub(crate) fn names(input: &Input) -> impl Iterator<Item = (&'static str, &str)> {
    let named = [("anchor_image", &input.anchor_image), ("image", &input.image)];
    named.into_iter().filter_map(|(field, said)| Some((field, said.as_deref()?)))
}

/// The hash of a picture's file, as metadata names it.
pub fn hash(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

/// An input as the metadata of its picture tells it: with the hashes of the pictures that were given, by field, and
/// without URLs that lead to them.
#[must_use]
pub fn told(input: &Input, hashes: &[(String, String)]) -> Input {
    let mut told = input.clone();
    for (field, url) in fields(&mut told) {
        if url.is_some() {
            *url = hashes.iter().find(|(name, _)| name == field).map(|(_, hash)| hash.clone());
        }
    }
    told
}

#[cfg(test)]
mod tests;
