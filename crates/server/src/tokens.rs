//! API tokens. What always holds: a token is kept as its hash and compared with all of them in constant time, so that
//! neither memory nor time reveals it.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// A token, as its SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    hash: [u8; 32],
    sound: bool,
}

impl Token {
    pub(crate) fn new(text: &str) -> Self {
        let sound = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        Self { hash: Sha256::digest(text).into(), sound }
    }

    /// Whether a header can carry it.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Token")
    }
}

/// All tokens that are accepted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(Arc<[Token]>);

impl Tokens {
    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        Self(tokens.into())
    }

    /// Whether no token is needed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a text is one of them.
    pub(crate) fn contains(&self, text: &str) -> bool {
        let shown = Token::new(text);
        let found = self.0.iter().fold(Choice::from(0), |found, token| found | token.hash.ct_eq(&shown.hash));
        found.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_distinguished_and_never_shown() {
        let tokens = Tokens::new(vec![Token::new("first"), Token::new("second")]);
        assert!(tokens.contains("first") && tokens.contains("second"));
        assert!(!["", "firs", "first ", "third"].iter().any(|wrong| tokens.contains(wrong)));
        assert!(!format!("{tokens:?}").contains("first"));
        assert!(!Token::new("").is_sound() && !Token::new("a b").is_sound() && !Token::new("ü").is_sound());
    }
}
