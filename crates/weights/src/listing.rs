//! What a hub lists of a repository.

use std::collections::BTreeMap;

use url::Url;

use crate::hash::Hash;
use crate::source::Source;

/// What a repository holds at a commit.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The repository and revision that were asked for.
    pub source: Source,
    /// The hub's URL.
    pub endpoint: Url,
    /// The commit that the revision names.
    pub commit: String,
    /// Files by their paths.
    pub files: BTreeMap<String, Listed>,
}

/// A file of a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Bytes.
    pub size: u64,
    /// The hash of the content.
    pub hash: Hash,
}
