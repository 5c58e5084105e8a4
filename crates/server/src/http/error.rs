//! Everything that can go wrong with a request, and the one table from there to status and body.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prediction::input::validate::Detail;
use prediction::service::Refused;
use prediction::store::StoreError;
use serde_json::{Value, json};

/// Why a request fails.
#[derive(Debug)]
pub(crate) enum Error {
    /// The body or a header cannot be read; status and message are Cog's.
    Body(StatusCode, String),
    /// The body can be read but is not valid: all reasons.
    Invalid(Vec<Detail>),
    /// The service refused the prediction.
    Refused(Refused),
    /// No prediction has this id.
    Unknown(String),
    /// No picture has this name.
    NoFile,
    /// The server does not serve the secret of webhooks.
    SecretNotShown,
    /// The prediction has not ended yet.
    NotEnded(String),
    /// The token is missing or not valid.
    Unauthorized(&'static str),
    /// The store failed.
    Store(StoreError),
}

impl Error {
    /// A single reason, at a place of the body.
    pub(crate) fn invalid(place: &str, message: impl Into<String>) -> Self {
        let loc = vec!["body".to_owned(), place.to_owned()];
        Self::Invalid(vec![Detail { loc, msg: message.into(), kind: "value_error".to_owned() }])
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Body(status, _) => *status,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Unknown(_) | Self::NoFile | Self::SecretNotShown => StatusCode::NOT_FOUND,
            Self::NotEnded(_) | Self::Refused(Refused::Busy | Refused::Exists(_) | Refused::Undelivered(_)) => {
                StatusCode::CONFLICT
            }
            Self::Refused(Refused::Full { .. }) => StatusCode::TOO_MANY_REQUESTS,
            // What is damaged stays so; everything else may pass.
            Self::Store(StoreError::Corrupt(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Store(_)
            | Self::Refused(
                Refused::NotReady | Refused::Closing | Refused::Trouble(_) | Refused::Store(_) | Refused::NotStored(_),
            ) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(&self) -> Value {
        match self {
            Self::Body(_, detail) => json!({ "detail": detail }),
            Self::Invalid(details) => json!({ "detail": details }),
            Self::Refused(refused) => json!({ "error": refused.to_string(), "status": "failed" }),
            Self::Unknown(id) => json!({ "detail": format!("there is no prediction `{id}`") }),
            Self::NoFile => json!({ "detail": "there is no such file, or it is no longer kept" }),
            Self::SecretNotShown => json!({
                "detail": "the server does not show its secret; read the file `webhook-secret` in the data folder, or \
                           start the server with `--show-webhook-secret`"
            }),
            Self::NotEnded(id) => {
                json!({ "detail": format!("prediction `{id}` has not ended; cancel it first") })
            }
            Self::Unauthorized(detail) => json!({ "detail": detail }),
            Self::Store(error) => json!({ "error": error.to_string(), "status": "failed" }),
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if self.status().is_server_error()
            && !matches!(self, Self::Refused(Refused::NotReady | Refused::Closing | Refused::Trouble(_)))
        {
            tracing::error!(error = %self.body(), "a request failed");
        }
        let mut response = (self.status(), Json(self.body())).into_response();
        let (name, value) = match self {
            Self::Refused(Refused::Full { after }) => (header::RETRY_AFTER, HeaderValue::from(after.as_secs())),
            Self::Unauthorized(_) => (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            _ => return response,
        };
        response.headers_mut().insert(name, value);
        response
    }
}

/// The response of a handler that panicked; it reveals nothing.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "detail": "internal server error" }))).into_response()
}
