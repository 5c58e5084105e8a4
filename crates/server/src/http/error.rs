//! Everything that can go wrong with a request, and the one table from there to status and body.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prediction::client_files::NotKept;
use prediction::input::Invalid;
use prediction::input::validate::Detail;
use prediction::service::Refused;
use prediction::shown::{shown, shown_up_to};
use prediction::store::StoreError;
use serde_json::{Value, json};

/// When to try again what passes by itself, in seconds.
const SOON: u64 = 5;

/// Why a request fails.
#[derive(Debug)]
pub(crate) enum Error {
    /// The body or a header cannot be read; status and message are Cog's.
    Body(StatusCode, String),
    /// The body is compressed.
    Compressed(String),
    /// There is no room for the body beside those of other requests.
    BodiesFull,
    /// There is no room for a page of a list beside those of other requests.
    PagesFull,
    /// No route has this path.
    NoPath(String),
    /// The path does not have this method.
    NoMethod(Method, String),
    /// A page of another origin, or under another name, asks.
    Foreign(&'static str),
    /// The body can be read but is not valid: all reasons.
    Invalid(Vec<Detail>),
    /// The service refused the prediction.
    Refused(Refused),
    /// The server has another model.
    NoModel {
        /// The one that is asked for.
        asked: String,
        /// The one that it has.
        ours: String,
    },
    /// The model has another version.
    Version,
    /// Files of clients take all the room for them.
    FilesFull,
    /// No prediction has this id.
    Unknown(String),
    /// The prediction has no picture of this number.
    NoPicture(String, u32),
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
    /// The handler panicked.
    Internal,
}

/// The error that a response is of, for those who write errors in another form.
#[derive(Clone, Debug)]
pub(super) struct Cause(pub(super) Arc<Error>);

impl Error {
    /// A single reason, at a place of the body.
    pub(crate) fn invalid(place: &str, message: impl Into<String>) -> Self {
        let loc = vec!["body".to_owned(), place.to_owned()];
        Self::Invalid(vec![Detail { loc, msg: message.into(), kind: "value_error".to_owned() }])
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Body(status, _) => *status,
            Self::Compressed(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Foreign(_) => StatusCode::FORBIDDEN,
            Self::NoMethod(..) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Invalid(_) | Self::Version | Self::Refused(Refused::KeyUsed | Refused::Invalid(_)) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::NoPath(_)
            | Self::NoModel { .. }
            | Self::Unknown(_)
            | Self::NoPicture(..)
            | Self::NoFile
            | Self::SecretNotShown => StatusCode::NOT_FOUND,
            Self::NotEnded(_) | Self::Refused(Refused::Busy | Refused::Exists(_) | Refused::Undelivered(_)) => {
                StatusCode::CONFLICT
            }
            Self::Refused(Refused::Full { .. }) => StatusCode::TOO_MANY_REQUESTS,
            // What is damaged stays so; everything else may pass.
            Self::Store(StoreError::Corrupt(_)) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BodiesFull
            | Self::PagesFull
            | Self::FilesFull
            | Self::Store(_)
            | Self::Refused(
                Refused::NotReady
                | Refused::NoWorker(_)
                | Refused::Closing
                | Refused::Trouble(_)
                | Refused::Store(_)
                | Refused::NotStored(_)
                | Refused::PicturesFull,
            ) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// When to try again, in seconds, where it may work by then; the same for all APIs.
    pub(super) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Refused(Refused::Full { after }) => Some(after.as_secs()),
            Self::Refused(Refused::Busy) => Some(SOON),
            // Somebody must start the server again, or delete files, which else expire within a day.
            Self::Refused(Refused::NoWorker(_)) | Self::FilesFull => None,
            passing => (passing.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(SOON),
        }
    }

    fn body(&self) -> Value {
        match self {
            Self::Body(_, detail) => json!({ "detail": shorten(detail) }),
            Self::Compressed(coding) => {
                let coding = shown_up_to(coding, 40);
                json!({ "detail": format!("a body with `Content-Encoding: {coding}` is not read; send it uncompressed") })
            }
            Self::BodiesFull => {
                json!({ "detail": "the bodies of other requests fill the memory for bodies; try again" })
            }
            Self::PagesFull => {
                json!({ "detail": "lists that other clients are reading fill the memory for lists; try again" })
            }
            Self::NoMethod(method, path) => {
                let method = shown_up_to(method.as_str(), 40);
                json!({ "detail": format!("`{method}` is not a method of `{}`; `Allow` lists those that are", shown(path)) })
            }
            Self::NoPath(path) => {
                let advice = if path.len() > 1 && path.ends_with('/') {
                    format!("; paths do not end in a slash: try `{}`", shown(path.trim_end_matches('/')))
                } else {
                    "; `/openapi.json` lists the paths".to_owned()
                };
                json!({ "detail": format!("there is no path `{}`{advice}", shown(path)) })
            }
            Self::Invalid(details) => json!({ "detail": details }),
            Self::Refused(refused @ Refused::KeyUsed) => json!({ "detail": refused.to_string() }),
            Self::Refused(refused) => json!({ "error": refused.to_string(), "status": "failed" }),
            Self::NoModel { asked, ours } => {
                json!({ "detail": format!("there is no model `{}`; this server has `{ours}`", shown_up_to(asked, 200)) })
            }
            Self::Version => json!({
                "detail": "the model of this server has another version; GET its `versions`, or send `owner/name` alone"
            }),
            Self::FilesFull => json!({ "detail": NotKept::Full.to_string() }),
            Self::Unknown(id) => json!({ "detail": format!("there is no prediction `{}`", shown_up_to(id, 1024)) }),
            Self::NoPicture(id, n) => {
                let id = shown_up_to(id, 1024);
                json!({ "detail": format!("prediction `{id}` does not exist or has no picture `{n}`; they count from 0") })
            }
            Self::NoFile => json!({ "detail": "there is no such file, or it is no longer kept" }),
            Self::SecretNotShown => json!({
                "detail": "the server does not show its secret; read the file `webhook-secret` in the data folder or \
                           the setting `webhook_secret` in the database, or start the server with \
                           `--show-webhook-secret`"
            }),
            Self::NotEnded(id) => {
                json!({ "detail": format!("prediction `{id}` has not ended; cancel it first") })
            }
            // It reveals nothing.
            Self::Internal => json!({ "detail": "internal server error" }),
            Self::Foreign(detail) | Self::Unauthorized(detail) => json!({ "detail": detail }),
            Self::Store(error) => json!({ "error": error.to_string(), "status": "failed" }),
        }
    }
}

impl Error {
    /// All that is wrong, as one text.
    pub(super) fn text(&self) -> String {
        let body = self.body();
        if let Self::Invalid(details) = self {
            let line = |detail: &Detail| format!("{}: {}", detail.loc.last().map_or("", String::as_str), detail.msg);
            return details.iter().map(line).collect::<Vec<_>>().join("; ");
        }
        let text = body.get("detail").or_else(|| body.get("error")).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    }
}

impl From<NotKept> for Error {
    fn from(error: NotKept) -> Self {
        match error {
            NotKept::Full => Self::FilesFull,
            NotKept::Io(error) => Self::Store(StoreError::Engine(format!("the file cannot be kept: {error}"))),
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid(errors) => Self::Invalid(errors.iter().map(Invalid::detail).collect()),
            refused => Self::Refused(refused),
        }
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
            && !matches!(
                self,
                Self::BodiesFull
                    | Self::PagesFull
                    | Self::FilesFull
                    | Self::Refused(
                        Refused::NotReady
                            | Refused::NoWorker(_)
                            | Refused::Closing
                            | Refused::Trouble(_)
                            | Refused::PicturesFull
                    )
            )
        {
            tracing::error!(error = %shown_up_to(&self.body().to_string(), 1000), "a request failed");
        }
        let mut response = (self.status(), Json(self.body())).into_response();
        let cause = Cause(Arc::new(self));
        response.extensions_mut().insert(cause.clone());
        let (name, value) = match &*cause.0 {
            Self::Compressed(_) => (header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            Self::Unauthorized(_) => (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            // Cog's 409 has none.
            Self::Refused(Refused::Busy) => return response,
            other => match other.retry_after() {
                Some(after) => (header::RETRY_AFTER, after.into()),
                None => return response,
            },
        };
        response.headers_mut().insert(name, value);
        response
    }
}

/// A message without the middle of a value that a client sent: its beginning and its end say what is wrong.
fn shorten(message: &str) -> Cow<'_, str> {
    const START: usize = 200;
    const END: usize = 150;
    if message.len() <= START + END + 50 {
        return message.into();
    }
    let start = &message[..message.floor_char_boundary(START)];
    let end = &message[message.ceil_char_boundary(message.len() - END)..];
    format!("{start}…{end}").into()
}

/// The response of a handler that panicked.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Error::Internal.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_does_not_repeat_what_was_sent() {
        let long = format!("invalid type: string \"{}\", expected a map at line 1 column 5", "ü".repeat(1 << 20));
        let short = shorten(&long);
        assert!(short.len() < 400 && short.starts_with("invalid type") && short.ends_with("line 1 column 5"));
        assert_eq!(shorten("a short one"), "a short one");
        for error in
            [Error::NoPath("/x".repeat(9999)), Error::Unknown("x".repeat(9999)), Error::Body(StatusCode::OK, long)]
        {
            assert!(error.body().to_string().len() < 1200);
        }
    }

    #[test]
    fn what_passes_by_itself_says_when_to_try_again() {
        let after = |error: Error| {
            let response = error.into_response();
            let after = response.headers().get(header::RETRY_AFTER).map(|after| after.to_str().unwrap().to_owned());
            (response.status().as_u16(), after)
        };
        let full = Refused::Full { after: std::time::Duration::from_secs(90) };
        assert_eq!(after(Error::Refused(full)), (429, Some("90".to_owned())));
        let away = || StoreError::Engine("the database does not answer".to_owned());
        for error in [
            Error::BodiesFull,
            Error::Store(away()),
            Error::Refused(Refused::Store(away())),
            Error::Refused(Refused::Trouble("the database does not answer".to_owned())),
            Error::Refused(Refused::NotReady),
            Error::Refused(Refused::Closing),
        ] {
            assert_eq!(after(error), (503, Some(SOON.to_string())));
        }
        assert_eq!(after(Error::FilesFull), (503, None));
        assert_eq!(after(Error::Refused(Refused::Busy)), (409, None));
        assert_eq!(after(Error::Refused(Refused::NoWorker("it crashed".to_owned()))), (503, None));
        assert_eq!(after(Error::Store(StoreError::Corrupt("a row".to_owned()))), (500, None));
        assert_eq!(after(Error::Unknown("a".to_owned())), (404, None));
    }
}
