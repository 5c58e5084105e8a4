//! API tokens, which may have names. What always holds: a token is kept as its hash and compared with all of them in
//! constant time, so that neither memory nor time reveals it; a name is not a secret, and says nothing of its token.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

/// The longest name in bytes.
const MAX_NAME: usize = 64;

/// A token, as its SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    hash: [u8; 32],
    /// Empty if it has none. Several tokens may have the same.
    name: Arc<str>,
    sound: bool,
}

impl Token {
    /// A token, or a name and a token with a blank between.
    pub(crate) fn new(text: &str) -> Self {
        let (name, token) = text.split_once([' ', '\t']).map_or(("", text), |(name, token)| (name, token.trim()));
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b));
        let named = name.len() <= MAX_NAME && plain(name) && (!name.is_empty() || token == text);
        let sound = named && !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        Self { hash: Sha256::digest(token).into(), name: name.into(), sound }
    }

    /// Whether a header can carry it, and metrics its name.
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

    /// A name for the client that has a token, which says nothing of the token.
    pub(crate) fn client(text: &str) -> String {
        let hash = Sha256::digest([b"client\n", Sha256::digest(text).as_slice()].concat());
        let start = hash.iter().take(8).fold(0, |start, byte| start << 8 | u64::from(*byte));
        format!("{start:016x}")
    }

    /// The name of a token, if it is one of them.
    pub(crate) fn find(&self, text: &str) -> Option<Arc<str>> {
        let hash: [u8; 32] = Sha256::digest(text).into();
        // Places from 1; the last of several equal tokens counts.
        let mut found = 0_u32;
        for (at, token) in (1..).zip(self.0.iter()) {
            found.conditional_assign(&at, token.hash.ct_eq(&hash));
        }
        let token = self.0.get((found as usize).checked_sub(1)?)?;
        Some(Arc::clone(&token.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_distinguished_and_never_shown() {
        let tokens = Tokens::new(vec![Token::new("first"), Token::new("second")]);
        assert!(tokens.find("first").is_some() && tokens.find("second").is_some());
        assert!(["", "firs", "first ", "third"].iter().all(|wrong| tokens.find(wrong).is_none()));
        assert!(!format!("{tokens:?}").contains("first"));
        assert_eq!((Tokens::client("first").len(), Tokens::client("first")), (16, Tokens::client("first")));
        assert_ne!(Tokens::client("first"), Tokens::client("second"));
        assert_eq!(tokens.find("first").as_deref(), Some(""));
        let named =
            Tokens::new(["alice secret-1", "bob\t secret-2 ", "alice secret-3", "plain"].map(Token::new).to_vec());
        for (token, name) in [("secret-1", "alice"), ("secret-2", "bob"), ("secret-3", "alice"), ("plain", "")] {
            assert_eq!(named.find(token).as_deref(), Some(name));
        }
        assert!(["alice", "alice secret-1", "bob"].iter().all(|wrong| named.find(wrong).is_none()));
        for bad in [" token", "a/b token", "ü token", "name ", "name to ken", &format!("{} token", "n".repeat(65))] {
            assert!(!Token::new(bad).is_sound(), "{bad}");
        }
        assert!(!Token::new("").is_sound() && !Token::new("a b c").is_sound() && !Token::new("ü").is_sound());
    }
}
