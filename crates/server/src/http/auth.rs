//! Tokens: who gets in where not everybody does.
//!
//! What always holds: with tokens, a route needs one unless it is named here; a token is kept as its hash and compared with all
//! of them, so that neither memory nor time tells it.

use std::fmt;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::{App, Error};

/// Routes that are open to everybody: health, metrics and pages. Every other one needs a token, also one yet to come.
const OPEN: [&str; 8] = ["/", "/docs", "/health-check", "/live", "/metrics", "/openapi.json", "/playground", "/ready"];
/// Routes below this are open, too: who knows the name of a file was told it.
const FILES: &str = "/files/";

/// A token, as its SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    hash: [u8; 32],
    sound: bool,
}

impl Token {
    /// The token of a text.
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

/// All tokens that are taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(Arc<[Token]>);

impl Tokens {
    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        Self(tokens.into())
    }

    /// Whether everybody gets in.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a text is one of them.
    fn know(&self, text: &str) -> bool {
        let shown = Token::new(text);
        let found = self.0.iter().fold(Choice::from(0), |found, token| found | token.hash.ct_eq(&shown.hash));
        found.into()
    }
}

/// Whether a route is open to everybody.
pub(crate) fn is_open(route: &str) -> bool {
    OPEN.contains(&route) || route.starts_with(FILES)
}

/// Lets a request through if its route is open, there are no tokens, or it shows one.
pub(super) async fn guard(
    State(app): State<App>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    if route.is_some_and(|route| is_open(route.as_str())) || app.tokens.is_empty() {
        return next.run(request).await;
    }
    match shown(request.headers()) {
        Some(text) if app.tokens.know(text) => next.run(request).await,
        Some(_) => Error::Unauthorized("the token is not one that this server takes").into_response(),
        None => Error::Unauthorized("a token is needed; send `Authorization: Bearer TOKEN`").into_response(),
    }
}

/// The token that a request shows: as `Bearer`, or as `Token`, which older clients of Replicate send.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let known = ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    known.then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_apart_and_never_shown() {
        let tokens = Tokens::new(vec![Token::new("first"), Token::new("second")]);
        assert!(tokens.know("first") && tokens.know("second"));
        assert!(!["", "firs", "first ", "third"].iter().any(|wrong| tokens.know(wrong)));
        assert!(!format!("{tokens:?}").contains("first"));
        assert!(!Token::new("").is_sound() && !Token::new("a b").is_sound() && !Token::new("ü").is_sound());
    }

    #[test]
    fn both_schemes_of_replicate_are_read() {
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            shown(&headers).map(str::to_owned)
        };
        for value in ["Bearer x", "bearer x", "Token x", "TOKEN  x "] {
            assert_eq!(read(value).as_deref(), Some("x"), "{value}");
        }
        for value in ["x", "Basic x", "Bearer", ""] {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(shown(&HeaderMap::new()), None);
    }
}
