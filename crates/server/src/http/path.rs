//! The parameters of a path, refused as everything else is if they cannot be read.

use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::Error;

/// The parameters of a path. That of axum answers with plain text where they are not UTF-8.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(parameters)) => Ok(Self(parameters)),
            Err(rejection) => {
                let message = format!("{}; write what is not ASCII as percent-encoded UTF-8", rejection.body_text());
                Err(Error::Body(rejection.status(), message))
            }
        }
    }
}
