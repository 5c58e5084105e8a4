//! Errors as OpenAI has them: `{"error": {"message", "type", "param", "code"}}`, all four always there.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prediction::Prediction;
use prediction::input::Invalid;
use prediction::service::Refused;
use prediction::store::StoreError;
use serde_json::{Value, json};

use crate::http::error::{Cause, Error};

/// Tells the official clients whether to try again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An error of these paths.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// When to try again, in seconds.
    after: Option<u64>,
    /// Trying again is in vain.
    is_final: bool,
}

impl Fault {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), after: None, is_final: false }
    }

    /// A value of a request that is not valid.
    pub(super) fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::refused(Some(param), "invalid_value", message)
    }

    /// A request that is not valid.
    pub(super) fn refused(param: Option<&str>, code: &'static str, message: impl Into<String>) -> Self {
        let fault = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some(code), message);
        Self { param: param.map(str::to_owned), ..fault }
    }

    /// Inputs that are not valid, all of them in one message.
    pub(super) fn inputs(errors: &[Invalid]) -> Self {
        let messages: Vec<String> =
            errors.iter().map(|error| format!("`{}`: {}", error.field, error.message)).collect();
        Self::invalid(errors.first().map_or("", |error| &error.field), messages.join("; "))
    }

    /// A model that is not here.
    pub(super) fn no_model(message: impl Into<String>) -> Self {
        let kind = "invalid_request_error";
        let fault = Self::new(StatusCode::NOT_FOUND, kind, Some("model_not_found"), message);
        Self { param: Some("model".to_owned()), ..fault }
    }

    /// A prediction that ended without a picture. The next attempt would fail as well.
    pub(super) fn failed(prediction: &Prediction) -> Self {
        let why = prediction.error.clone().unwrap_or_else(|| "the prediction was canceled".to_owned());
        Self::lost(prediction.status.name(), why)
    }

    /// There is no picture, and another attempt would have none either.
    pub(super) fn lost(code: &'static str, message: impl Into<String>) -> Self {
        let fault = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some(code), message);
        Self { is_final: true, ..fault }
    }

    /// The server stops before there is a picture.
    pub(super) fn closing() -> Self {
        Self::from(&Error::Refused(Refused::Closing))
    }

    fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some(code), message)
    }

    /// The body.
    pub(super) fn body(&self) -> Value {
        let Self { kind, code, param, message, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let message = error.text();
        let refused = |code| Self::refused(None, code, message.clone());
        let fault = match error {
            Error::Unauthorized(_) => {
                let status = StatusCode::UNAUTHORIZED;
                Self::new(status, "invalid_request_error", Some("invalid_api_key"), message)
            }
            Error::Foreign(_) => Self { status: StatusCode::FORBIDDEN, ..refused("origin_not_allowed") },
            Error::NoPath(_) => Self { status: StatusCode::NOT_FOUND, ..refused("unknown_url") },
            Error::NoMethod(..) => Self { status: StatusCode::METHOD_NOT_ALLOWED, ..refused("method_not_supported") },
            Error::NoModel { .. } | Error::Version => Self::no_model(message),
            Error::Unknown(_) | Error::NoPicture(..) | Error::NoFile | Error::SecretNotShown | Error::NotEnded(_) => {
                Self { status: StatusCode::NOT_FOUND, ..refused("not_found") }
            }
            Error::Body(StatusCode::PAYLOAD_TOO_LARGE, _) => {
                Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..refused("body_too_large") }
            }
            // Not 408, which clients try again.
            Error::Body(..) | Error::Compressed(_) => refused("invalid_body"),
            Error::Invalid(details) => {
                let param = details.first().and_then(|detail| detail.loc.last()).cloned();
                Self { param, ..refused("invalid_value") }
            }
            Error::Refused(Refused::Full { .. } | Refused::Busy) => {
                let (status, kind) = (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error");
                Self::new(status, kind, Some("rate_limit_exceeded"), message)
            }
            Error::Refused(Refused::Invalid(errors)) => Self::inputs(errors),
            Error::Refused(Refused::KeyUsed) => refused("key_used"),
            Error::Refused(refused) => Self::unavailable(refused.name(), message),
            Error::Store(StoreError::Corrupt(_)) => Self::lost("store", message),
            Error::Internal => Self::lost("internal", message),
            Error::Store(_) => Self::unavailable("store", message),
            Error::BodiesFull | Error::PagesFull | Error::FilesFull => Self::unavailable("no_room", message),
        };
        Self { after: error.retry_after(), ..fault }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.after {
            headers.insert(header::RETRY_AFTER, after.into());
        }
        if self.is_final {
            tracing::error!(error = self.message, "a request for pictures failed");
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Gives errors of what every request passes (tokens, limits, unknown paths) the form that clients of these paths read.
pub(crate) async fn dress(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    // A name of two parts is a model of Replicate.
    let named = path.strip_prefix("/v1/models/").is_some_and(|name| !name.is_empty() && !name.contains('/'));
    let ours = named || path == "/v1/images" || path.starts_with("/v1/images/");
    let response = next.run(request).await;
    if !ours {
        return response;
    }
    let Some(Cause(error)) = response.extensions().get() else { return response };
    let mut dressed = Fault::from(&**error).into_response();
    for (name, value) in response.headers() {
        if *name != header::CONTENT_LENGTH && !dressed.headers().contains_key(name) {
            dressed.headers_mut().insert(name, value.clone());
        }
    }
    dressed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_says_when_to_try_again() {
        for (fault, status, after) in [
            (Fault::closing(), 503, Some("5")),
            (Fault::from(Error::Refused(Refused::Busy)), 429, Some("5")),
            (Fault::from(Error::PagesFull), 503, Some("5")),
            (Fault::from(Error::FilesFull), 503, None),
            (Fault::from(Error::Refused(Refused::NoWorker("it crashed".to_owned()))), 503, None),
            (Fault::lost("failed", "it failed"), 500, None),
        ] {
            let response = fault.into_response();
            let told = response.headers().get(header::RETRY_AFTER).map(|after| after.to_str().unwrap());
            assert_eq!((response.status().as_u16(), told), (status, after));
        }
        let closing = Fault::closing().body();
        assert_eq!((&closing["error"]["code"], &closing["error"]["type"]), (&json!("closing"), &json!("server_error")));
    }
}
