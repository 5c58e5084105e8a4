//! Errors as this API has them: `{"error", "detail", "body", "errors"}`, of which clients show one or another.

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prediction::Prediction;
use prediction::input::Invalid;
use prediction::service::Refused;
use serde_json::json;

use crate::http::error::{Cause, Error};

/// An error of these paths.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    name: &'static str,
    message: String,
    /// When to try again, in seconds.
    after: Option<u64>,
}

impl Fault {
    fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self { status, name, message: message.into(), after: None }
    }

    /// A value of a request that is not valid.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "RequestValidationError", message)
    }

    /// Inputs that are not valid, all of them in one message.
    pub(super) fn inputs(errors: &[Invalid]) -> Self {
        let messages: Vec<String> =
            errors.iter().map(|error| format!("`{}`: {}", error.field, error.message)).collect();
        Self::invalid(messages.join("; "))
    }

    /// A prediction that ended without a picture.
    pub(super) fn failed(prediction: &Prediction) -> Self {
        let message = prediction.error.clone().unwrap_or_else(|| "the prediction was canceled".to_owned());
        Self::lost(message)
    }

    /// There is no picture.
    pub(super) fn lost(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "RuntimeError", message)
    }

    /// The server stops before there is a picture.
    pub(super) fn closing() -> Self {
        Self::from(&Error::Refused(Refused::Closing))
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let name = if matches!(error, Error::Invalid(_)) { "RequestValidationError" } else { "HTTPException" };
        Self { after: error.retry_after(), ..Self::new(error.status(), name, error.text()) }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let Self { status, name, message, after } = self;
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = message, "a request for pictures failed");
        }
        let body = json!({ "error": name, "detail": message, "body": "", "errors": message });
        let mut response = (status, Json(body)).into_response();
        if let Some(after) = after {
            response.headers_mut().insert(header::RETRY_AFTER, after.into());
        }
        response
    }
}

/// Gives errors of what every request passes the form that clients of these paths read.
pub(crate) async fn dress(request: Request, next: Next) -> Response {
    let ours = request.uri().path().starts_with("/sdapi/");
    let response = next.run(request).await;
    let Some(Cause(error)) = response.extensions().get::<Cause>().filter(|_| ours) else { return response };
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_passes_says_when_to_try_again() {
        let full = Refused::Full { after: Duration::from_secs(90) };
        for (fault, status, after) in [
            (Fault::closing(), 503, Some("5")),
            (Fault::from(Error::Refused(full)), 429, Some("90")),
            (Fault::from(Error::Refused(Refused::Busy)), 409, Some("5")),
            (Fault::from(Error::Refused(Refused::NoWorker("it crashed".to_owned()))), 503, None),
            (Fault::lost("it failed"), 500, None),
        ] {
            let response = fault.into_response();
            let told = response.headers().get(header::RETRY_AFTER).map(|after| after.to_str().unwrap());
            assert_eq!((response.status().as_u16(), told), (status, after));
        }
    }
}
