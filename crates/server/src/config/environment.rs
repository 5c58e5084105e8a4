//! Variables that do not belong to a flag.

use std::env;

/// The variables with a prefix, by name, as far as they are UTF-8.
pub(super) fn with_prefix(prefix: &str) -> impl Iterator<Item = (String, String)> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(move |(name, _)| name.starts_with(prefix))
}

/// Whether a variable is set, even to nothing.
pub(super) fn is_set(name: &str) -> bool {
    env::var_os(name).is_some()
}
