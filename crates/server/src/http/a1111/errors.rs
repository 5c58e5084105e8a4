//! Errors as this API has them: `{"error", "detail", "body", "errors"}`, of which clients show one or another.

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prediction::Prediction;
use prediction::input::Invalid;
use serde_json::json;

use crate::http::error::{Cause, Error};

/// An error of these paths.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    name: &'static str,
    message: String,
}

impl Fault {
    /// A value of a request that is not valid.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, name: "RequestValidationError", message: message.into() }
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
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, name: "RuntimeError", message: message.into() }
    }

    /// The server stops before there is a picture.
    pub(super) fn closing() -> Self {
        let message = "the server is shutting down; try again later".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, name: "HTTPException", message }
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let name = if matches!(error, Error::Invalid(_)) { "RequestValidationError" } else { "HTTPException" };
        Self { status: error.status(), name, message: error.text() }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let Self { status, name, message } = self;
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = message, "a request for pictures failed");
        }
        (status, Json(json!({ "error": name, "detail": message, "body": "", "errors": message }))).into_response()
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
