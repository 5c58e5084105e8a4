//! Which requests need a token. What always holds: with tokens, a route needs one unless it is named here.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::Error;
use super::state::App;
use crate::tokens::Tokens;

/// Routes that are open to everybody: health, metrics and pages. Every other one needs a token, also one yet to come.
const OPEN: [&str; 8] = ["/", "/docs", "/health-check", "/live", "/metrics", "/openapi.json", "/playground", "/ready"];
/// Routes below these are open, too: the files of pages, and what only those know who were given the name of a file or
/// the key of a picture.
const OPEN_BELOW: [&str; 5] = ["/files/", "/page/", "/view/", "/v1/files/output/", "/v1/files/stream/"];

/// Who asks: the name of the token, empty where it has none or none is needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenName(pub(crate) Arc<str>);

/// Routes below this take a token as the password of any user, too: their clients know nothing else.
const BASIC: &str = "/sdapi/";

/// Whether a route is open to everybody.
pub(crate) fn is_open(route: &str) -> bool {
    OPEN.contains(&route) || OPEN_BELOW.iter().any(|open| route.starts_with(open))
}

/// Who sent a request, by its token; empty where none is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// Lets a request pass if its route is open, no token is needed, or it has a valid one.
pub(super) async fn guard(
    State(app): State<App>,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(TokenName::default());
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    // OPTIONS does nothing; clients that send no token ask by it whether a route exists.
    if is_open(route) || app.tokens.is_empty() || request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    let headers = request.headers();
    let password = || password(headers).filter(|_| route.starts_with(BASIC));
    let text = token(headers).map(str::to_owned).or_else(password);
    match text.map(|text| (app.tokens.find(&text), text)) {
        Some((Some(name), text)) => {
            let caller = if name.is_empty() { Tokens::client(&text) } else { format!("={name}") };
            request.extensions_mut().insert(Caller(caller));
            request.extensions_mut().insert(TokenName(name));
            next.run(request).await
        }
        Some((None, _)) => Error::Unauthorized("the token is not valid for this server").into_response(),
        None => Error::Unauthorized("a token is needed; send `Authorization: Bearer TOKEN`").into_response(),
    }
}

/// The token of a request: as `Bearer`, or as `Token`, which older clients of Replicate send.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let known = ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    known.then(|| token.trim())
}

/// The password of `Basic`.
pub(super) fn password(headers: &HeaderMap) -> Option<String> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let text = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()))?.ok()?;
    let (_, password) = std::str::from_utf8(&text).ok()?.split_once(':')?;
    Some(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_of_replicate_are_read() {
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            token(&headers).map(str::to_owned)
        };
        for value in ["Bearer x", "bearer x", "Token x", "TOKEN  x "] {
            assert_eq!(read(value).as_deref(), Some("x"), "{value}");
        }
        for value in ["x", "Basic x", "Bearer", ""] {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }

    #[test]
    fn a_password_is_what_comes_after_the_user() {
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            password(&headers)
        };
        // user:a:b, :x, user
        assert_eq!(read("Basic dXNlcjphOmI=").as_deref(), Some("a:b"));
        assert_eq!(read("basic Ong=").as_deref(), Some("x"));
        for value in ["Basic dXNlcg==", "Basic !", "Basic", "Bearer Ong=", ""] {
            assert_eq!(read(value), None, "{value}");
        }
    }
}
