//! `Idempotency-Key`: a request that is sent again is answered with the prediction of the first.
//!
//! A key is its client's: others may use the same. It is known as long as its prediction is kept.

use axum::http::{HeaderMap, StatusCode};
use prediction::store::Key;

use super::auth::Caller;
use super::error::Error;

/// The header.
pub(super) const NAME: &str = "idempotency-key";
/// The longest key in bytes.
pub(crate) const MAX_KEY: usize = 255;

/// The key of a request, if it has one.
pub(super) fn key(headers: &HeaderMap, Caller(client): &Caller, body: &[u8]) -> Result<Option<Key>, Error> {
    let Some(value) = headers.get(NAME) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len()));
    let wrong = || {
        let message = format!("`Idempotency-Key` has 1 to {MAX_KEY} visible characters of ASCII");
        Error::Body(StatusCode::UNPROCESSABLE_ENTITY, message)
    };
    Ok(Some(Key::new(client, key.ok_or_else(wrong)?, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_its_client_and_its_body() {
        let headers = |key: &str| HeaderMap::from_iter([(NAME.parse().unwrap(), key.parse().unwrap())]);
        let read = |client: &str, body: &[u8]| key(&headers("k 1"), &Caller(client.to_owned()), body).unwrap().unwrap();
        assert_eq!(read("a", b"x"), read("a", b"x"));
        assert_ne!(read("a", b"x").digest, read("a", b"y").digest);
        assert_eq!(read("a", b"x").name, read("a", b"y").name);
        assert_ne!(read("a", b"x").name, read("b", b"x").name);
        assert!(key(&HeaderMap::new(), &Caller::default(), b"").unwrap().is_none());
        for wrong in ["", "ü", &"x".repeat(MAX_KEY + 1)] {
            assert!(key(&headers(wrong), &Caller::default(), b"").is_err(), "{wrong}");
        }
    }
}
