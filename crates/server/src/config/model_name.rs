//! The name under which clients know the model.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// `OWNER/NAME`. Clients write it in URLs, and compare it in upper or lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelName {
    owner: String,
    name: String,
}

impl ModelName {
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a client means this model.
    pub(crate) fn is(&self, owner: &str, name: &str) -> bool {
        self.owner.eq_ignore_ascii_case(owner) && self.name.eq_ignore_ascii_case(name)
    }
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            (1..=64).contains(&part.len()) && part.bytes().all(allowed) && part.bytes().any(|byte| byte != b'.')
        };
        let parts = text.split_once('/').filter(|(owner, name)| plain(owner) && plain(name));
        let (owner, name) = parts.ok_or("write `OWNER/NAME`, each of letters, digits, `-`, `_` and `.`")?;
        Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.owner, self.name)
    }
}

impl Serialize for ModelName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_two_parts() {
        let name: ModelName = "Acme/pano-2.1".parse().unwrap();
        assert_eq!((name.owner(), name.name(), name.to_string().as_str()), ("Acme", "pano-2.1", "Acme/pano-2.1"));
        assert!(name.is("acme", "PANO-2.1") && !name.is("acme", "pano"));
        for wrong in ["", "a", "a/", "/b", "a/b/c", "a/b:c", "a b/c", "../..", "ü/b"] {
            assert!(wrong.parse::<ModelName>().is_err(), "{wrong}");
        }
    }
}
