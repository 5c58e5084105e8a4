//! Text that no log and no error may show.

use std::fmt;

/// A secret. Its text is read only by [`Redacted::reveal`].
///
/// Not `secrecy::SecretString`: that one cannot be compared or made by clap from a flag, and wipes memory that the
/// environment and the command line keep anyway.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted(String);

impl Redacted {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Redacted {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("[redacted]")
    }
}
