//! The body of a request for a prediction, refused in the words of Cog if it cannot be read.

use std::collections::HashMap;
use std::error::Error as _;
use std::iter;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use prediction::webhook::EventKind;
use serde::Deserialize;
use serde_json::Value;
use tower_http::timeout::TimeoutError;

use super::error::Error;

/// The longest id in bytes.
pub(crate) const MAX_ID: usize = 1024;

/// The body of POST and PUT. Name, fields and their order appear in the messages.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PredictionRequest {
    // Without a default an empty list is refused for its length, as Cog does.
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) input: Value,
    /// Read for its type only; the model does not use it.
    #[serde(default, rename = "context")]
    _context: HashMap<String, String>,
    #[serde(default)]
    pub(super) webhook: Option<String>,
    #[serde(default = "all")]
    pub(super) webhook_events_filter: Vec<EventKind>,
    /// Read separately, so that messages stay those of Cog, which no longer has it.
    #[serde(skip)]
    pub(super) output_file_prefix: Option<String>,
}

/// What Cog up to 0.16 had besides.
#[derive(Debug, Deserialize)]
struct Older {
    output_file_prefix: Option<String>,
}

fn all() -> Vec<EventKind> {
    EventKind::ALL.to_vec()
}

impl<S: Send + Sync> FromRequest<S> for PredictionRequest {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let kind = content_type(request.headers());
        if kind == ContentType::Other {
            let words = "Expected request with `Content-Type: application/json`";
            return Err(Error::Body(StatusCode::UNSUPPORTED_MEDIA_TYPE, words.to_owned()));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if is_late(&rejection) {
                Error::Body(StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned())
            } else {
                Error::Body(rejection.status(), rejection.body_text())
            }
        })?;
        if bytes.is_empty() && kind == ContentType::Missing {
            return Ok(Self { webhook_events_filter: all(), ..Self::default() });
        }
        let refused = |rejection: JsonRejection| Error::Body(rejection.status(), rejection.body_text());
        let Json(mut body) = Json::<Self>::from_bytes(&bytes).map_err(refused)?;
        // An array is accepted as a body, too, as Cog does, and cannot contain it.
        if bytes.trim_ascii_start().starts_with(b"{") {
            let Json(older) = Json::<Older>::from_bytes(&bytes).map_err(refused)?;
            body.output_file_prefix = older.output_file_prefix;
        }
        Ok(body)
    }
}

/// Whether a body was refused because it took too long.
fn is_late(rejection: &BytesRejection) -> bool {
    iter::successors(rejection.source(), |&cause| cause.source()).any(<dyn std::error::Error>::is::<TimeoutError>)
}

#[derive(Debug, PartialEq)]
enum ContentType {
    Json,
    Missing,
    Other,
}

/// `application/json` or `application/*+json`, with any parameters.
fn content_type(headers: &HeaderMap) -> ContentType {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return ContentType::Missing };
    let value = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match value.strip_prefix("application/") {
        _ if value.is_empty() => ContentType::Missing,
        Some(kind) if kind == "json" || kind.ends_with("+json") => ContentType::Json,
        _ => ContentType::Other,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn read(kind: Option<&str>, body: &'static str) -> Result<PredictionRequest, (u16, String)> {
        let mut request = Request::builder();
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        PredictionRequest::from_request(request.body(Body::from(body)).unwrap(), &()).await.map_err(|error| match error
        {
            Error::Body(status, words) => (status.as_u16(), words),
            other => panic!("{other:?}"),
        })
    }

    #[tokio::test]
    async fn the_words_of_refusal_are_those_of_cog() {
        let target = "Failed to deserialize the JSON body into the target type: ";
        for (body, status, words) in [
            (
                "{bad",
                400,
                "Failed to parse the request body as JSON: key must be a string at line 1 column 2".to_owned(),
            ),
            (
                "",
                400,
                "Failed to parse the request body as JSON: EOF while parsing a value at line 1 column 0".to_owned(),
            ),
            (
                "[]",
                422,
                format!(
                    "{target}invalid length 0, expected struct PredictionRequest with 5 elements at line 1 column 2"
                ),
            ),
            (
                "\"x\"",
                422,
                format!("{target}invalid type: string \"x\", expected struct PredictionRequest at line 1 column 3"),
            ),
            ("null", 422, format!("{target}invalid type: null, expected struct PredictionRequest at line 1 column 4")),
            (
                r#"{"id":5,"input":{"prompt":"a"}}"#,
                422,
                format!("{target}id: invalid type: integer `5`, expected a string at line 1 column 7"),
            ),
            (
                r#"{"input":{"prompt":"a"},"webhook_events_filter":["nope"]}"#,
                422,
                format!(
                    "{target}webhook_events_filter[0]: unknown variant `nope`, expected one of `start`, `output`, \
                     `logs`, `completed` at line 1 column 55"
                ),
            ),
            (
                r#"{"input":{"prompt":"a","num_inference_steps":1},"webhook_events_filter":null}"#,
                422,
                format!("{target}webhook_events_filter: invalid type: null, expected a sequence at line 1 column 76"),
            ),
            (
                r#"{"input":{"prompt":"a"},"webhook":5}"#,
                422,
                format!("{target}webhook: invalid type: integer `5`, expected a string at line 1 column 35"),
            ),
            (
                r#"{"input":{"prompt":"a"},"context":{"k":1}}"#,
                422,
                format!("{target}context.k: invalid type: integer `1`, expected a string at line 1 column 40"),
            ),
            (
                r#"{"input":{"prompt":"a"},"context":null}"#,
                422,
                format!("{target}context: invalid type: null, expected a map at line 1 column 38"),
            ),
            (
                r#"{"input":{"prompt":"a"},"input":{"prompt":"b"}}"#,
                422,
                format!("{target}duplicate field `input` at line 1 column 31"),
            ),
        ] {
            assert_eq!(read(Some("application/json"), body).await.unwrap_err(), (status, words), "{body}");
        }
        let other = read(Some("text/plain"), "{}").await.unwrap_err();
        assert_eq!(other, (415, "Expected request with `Content-Type: application/json`".to_owned()));
    }

    #[tokio::test]
    async fn what_older_clients_send_is_read() {
        let read = |body| async move { read(None, body).await };
        assert_eq!(
            read(r#"{"output_file_prefix":"http://h/"}"#).await.unwrap().output_file_prefix.as_deref(),
            Some("http://h/")
        );
        assert_eq!(read(r#"{"output_file_prefix":null}"#).await.unwrap().output_file_prefix, None);
        let (status, words) = read(r#"{"output_file_prefix":5}"#).await.unwrap_err();
        assert_eq!(status, 422);
        assert!(words.contains("output_file_prefix: invalid type: integer `5`, expected a string"), "{words}");
    }

    #[tokio::test]
    async fn json_needs_no_content_type() {
        let read_well = |kind, body| async move { read(kind, body).await.unwrap() };
        assert_eq!(read_well(None, r#"{"id":"a"}"#).await.id.as_deref(), Some("a"));
        assert_eq!(read_well(None, "").await.webhook_events_filter, EventKind::ALL);
        assert!(read_well(Some("application/vnd.api+json; charset=utf-8"), "{}").await.id.is_none());
        assert!(
            read_well(Some("Application/JSON"), r#"{"webhook_events_filter":[]}"#)
                .await
                .webhook_events_filter
                .is_empty()
        );
    }
}
