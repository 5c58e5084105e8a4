//! What handlers read of a request besides its body.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::auth::{Caller, TokenName};
use super::observe::RequestId;

/// Who sends a request, and its headers.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) request_id: RequestId,
    pub(super) token: TokenName,
    pub(super) caller: Caller,
    pub(super) headers: HeaderMap,
}

impl<S: Send + Sync> FromRequestParts<S> for Head {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = &parts.extensions;
        Ok(Self {
            request_id: known.get().cloned().unwrap_or_default(),
            token: known.get().cloned().unwrap_or_default(),
            caller: known.get().cloned().unwrap_or_default(),
            headers: parts.headers.clone(),
        })
    }
}
