//! Who makes a small copy of a picture, so that none is made twice, nor too many at once.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use tokio::sync::Mutex;

use crate::store::Which;

/// How many copies are made at once.
const AT_ONCE: usize = 2;

/// Keeps copies from being made twice, or too many at once.
#[derive(Debug, Default)]
pub(super) struct Copies([Mutex<()>; AT_ONCE]);

impl Copies {
    /// Whoever holds this makes the copy.
    pub(super) fn of(&self, id: &str, which: &Which) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        (id, which).hash(&mut hasher);
        &self.0[(hasher.finish() % AT_ONCE as u64) as usize]
    }
}
