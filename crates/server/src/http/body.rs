//! The body of a request for a prediction, refused in the words of Cog if it cannot be read.
//!
//! What always holds: a body costs at most about three times its size, because what nobody asks for is skipped, and the
//! bodies that are read at once are bounded in sum.

use std::{fmt, iter};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{BoxError, RequestExt as _};
use futures_util::TryStreamExt as _;
use prediction::input::Given;
use prediction::store::Key;
use prediction::webhook::EventKind;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::sync::OwnedSemaphorePermit;
use tower_http::timeout::TimeoutError;

use super::auth::Caller;
use super::error::Error;
use super::idempotency;
use super::room::{Bodies, PATIENCE, SMALL};

/// The longest id in bytes.
pub(crate) const MAX_ID: usize = 1024;
/// What Windows tools write before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A body without its byte order mark.
pub(super) fn unmarked(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// The body of POST and PUT. Name, fields and their order appear in the messages.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PredictionRequest {
    // Without a default an empty list is refused for its length, as Cog does.
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) input: Given,
    /// Read for its type only; the model does not use it.
    #[serde(default, rename = "context")]
    _context: Texts,
    #[serde(default)]
    pub(super) webhook: Option<String>,
    #[serde(default = "all")]
    pub(super) webhook_events_filter: Vec<EventKind>,
    /// Read separately, so that messages stay those of Cog, which no longer has it.
    #[serde(skip)]
    pub(super) output_file_prefix: Option<String>,
    /// The room of a body with pictures, which stay until they are stored.
    #[serde(skip)]
    pub(super) room: Option<OwnedSemaphorePermit>,
    #[serde(skip)]
    pub(super) key: Option<Key>,
}

/// What Cog up to 0.16 had besides.
#[derive(Debug, Deserialize)]
struct Older {
    output_file_prefix: Option<String>,
}

pub(super) fn all() -> Vec<EventKind> {
    EventKind::ALL.to_vec()
}

/// A map of texts that is checked and not kept.
#[derive(Debug, Default)]
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Texts;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                while map.next_entry::<Text, Text>()?.is_some() {}
                Ok(Texts)
            }
        }
        from.deserialize_map(Reader)
    }
}

/// A text that is not kept.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Text;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a string")
            }

            fn visit_str<E>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        from.deserialize_str(Reader)
    }
}

impl<S: Send + Sync> FromRequest<S> for PredictionRequest
where
    Bodies: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let is_missing = content_type(request.headers()) == ContentType::Missing;
        json(request, &Bodies::from_ref(state), move |bytes| {
            if bytes.is_empty() && is_missing {
                return Ok(Self { webhook_events_filter: all(), ..Self::default() });
            }
            Self::parse(bytes)
        })
        .await
    }
}

impl Keyed for PredictionRequest {
    fn keyed(self, key: Option<Key>, held: Option<OwnedSemaphorePermit>) -> Self {
        let room = held.filter(|_| !self.input.sent.is_empty());
        Self { room, key, ..self }
    }
}

/// What is read from a body, with the `Idempotency-Key` of its request, and the room of the body if that is to be held
/// longer.
pub(super) trait Keyed: Sized {
    fn keyed(self, key: Option<Key>, held: Option<OwnedSemaphorePermit>) -> Self;
}

/// Reads a body of JSON, and parses it beside what else there is to do if it is large.
pub(super) async fn json<T: Keyed + Send + 'static>(
    request: Request,
    bodies: &Bodies,
    parse: impl FnOnce(&[u8]) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if content_type(request.headers()) == ContentType::Other {
        let words = "Expected request with `Content-Type: application/json`";
        return Err(Error::Body(StatusCode::UNSUPPORTED_MEDIA_TYPE, words.to_owned()));
    }
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    let headers = request.headers().get(idempotency::NAME).is_some().then(|| request.headers().clone());
    let (bytes, held) = read(request, bodies).await?;
    let parse = move |bytes: Vec<u8>| {
        let key = headers.map_or(Ok(None), |headers| idempotency::key(&headers, &caller, &bytes))?;
        let parsed = parse(&bytes)?;
        drop(bytes);
        Ok(parsed.keyed(key, held))
    };
    if bytes.len() <= SMALL {
        return parse(bytes);
    }
    let parse = move || parse(bytes);
    tokio::task::spawn_blocking(parse).await.unwrap_or(Err(Error::BodiesFull))
}

impl PredictionRequest {
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = unmarked(bytes);
        let refused = |rejection: JsonRejection| Error::Body(rejection.status(), rejection.body_text());
        let Json(mut body) = Json::<Self>::from_bytes(bytes).map_err(refused)?;
        // An array is accepted as a body, too, as Cog does, and cannot contain it.
        if bytes.trim_ascii_start().starts_with(b"{") {
            let Json(older) = Json::<Older>::from_bytes(bytes).map_err(refused)?;
            body.output_file_prefix = older.output_file_prefix;
        }
        let mut known = Vec::with_capacity(EventKind::ALL.len());
        for kind in body.webhook_events_filter {
            if !known.contains(&kind) {
                known.push(kind);
            }
        }
        body.webhook_events_filter = known;
        Ok(body)
    }
}

/// Reads a body as it comes, with the room that it takes.
pub(super) async fn read(request: Request, bodies: &Bodies) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Error> {
    if let Some(coding) = compression(request.headers()) {
        return Err(Error::Compressed(coding));
    }
    let (mut bytes, mut held, mut patience) = (Vec::new(), None, PATIENCE);
    let mut data = request.with_limited_body().into_body().into_data_stream();
    loop {
        let chunk = data.try_next().await.map_err(|error| unread(&error.into()))?;
        let Some(chunk) = chunk else { return Ok((bytes, held)) };
        bodies.reserve(&mut held, bytes.len() + chunk.len(), &mut patience).await?;
        bytes.extend_from_slice(&chunk);
    }
}

/// Why a body was not read, in the words of axum, which Cog has.
fn unread(error: &BoxError) -> Error {
    let causes = || iter::successors(Some(&**error as &dyn std::error::Error), |&cause| cause.source());
    if causes().any(<dyn std::error::Error>::is::<TimeoutError>) {
        return Error::Body(StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned());
    }
    let too_large = causes().any(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>);
    let status = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
    Error::Body(status, format!("Failed to buffer the request body: {error}"))
}

/// How a body is compressed, if it is.
fn compression(headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut codings = codings.flat_map(|value| value.to_str().unwrap_or("unknown").split(',').map(str::trim));
    codings.find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")).map(str::to_owned)
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
    use std::pin::pin;
    use std::sync::Arc;

    use axum::body::Body;

    use super::*;
    use crate::http::room::MAX_SUM;

    async fn read(kind: Option<&str>, body: &'static str) -> Result<PredictionRequest, (u16, String)> {
        let mut request = Request::builder();
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        PredictionRequest::from_request(request.body(Body::from(body)).unwrap(), &Bodies::new(0)).await.map_err(refusal)
    }

    fn refusal(error: Error) -> (u16, String) {
        match error {
            Error::Body(status, words) => (status.as_u16(), words),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_unknown_is_skipped() {
        let many = r#"{"":[{}]},"#.repeat(100_000);
        let body = format!(r#"{{"x":[{many}0],"input":{{"prompt":"a","y":[{many}0]}},"context":{{"a":"b"}}}}"#);
        assert!(body.len() > 20 * SMALL, "it is parsed beside");
        let bodies = Bodies::new(0);
        let read = PredictionRequest::from_request(Request::new(Body::from(body)), &bodies).await.unwrap();
        assert_eq!(read.input.value, serde_json::json!({"prompt": "a"}));
        assert_eq!(read.input.unknown, ["y"]);
        assert_eq!(bodies.0.available_permits() as u64 * 1024, MAX_SUM, "the room is returned");
    }

    #[tokio::test]
    async fn a_large_body_is_parsed_beside_what_else_there_is_to_do() {
        let body = format!(r#"{{"input":{{"prompt":"a","x":[{}0]}}}}"#, r#"{"":0},"#.repeat(200_000));
        let bodies = Bodies::new(0);
        let mut read = pin!(PredictionRequest::from_request(Request::new(Body::from(body)), &bodies));
        let mut turns = 0;
        // All of it is there from the start, and this test has one thread.
        let read = loop {
            tokio::select! {
                biased;
                read = &mut read => break read,
                () = tokio::task::yield_now() => turns += 1,
            }
        };
        assert!(read.is_ok() && turns > 1, "{turns}");
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_bounded_in_sum() {
        let bodies = Bodies::new(0);
        let rest = Arc::clone(&bodies.0).acquire_many_owned((MAX_SUM >> 10) as u32 - 10).await.unwrap();
        let read = |length: usize| {
            let body = format!("{{}}{}", " ".repeat(length));
            async { PredictionRequest::from_request(Request::new(Body::from(body)), &bodies).await }
        };
        assert!(read(SMALL).await.is_ok() && read(SMALL + 8000).await.is_ok());
        assert!(matches!(read(SMALL + 20_000).await, Err(Error::BodiesFull)));
        let (waited, ()) = tokio::join!(read(SMALL + 20_000), async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(rest);
        });
        assert!(waited.is_ok(), "a body waits for others");
    }

    #[tokio::test]
    async fn compression_is_refused_and_a_mark_is_skipped() {
        let send = |coding: &'static str| async move {
            let request = Request::builder().header("content-encoding", coding).body(Body::from("{}")).unwrap();
            PredictionRequest::from_request(request, &Bodies::new(0)).await
        };
        for coding in ["gzip", "identity, br", "DEFLATE", "zstd"] {
            assert!(matches!(send(coding).await, Err(Error::Compressed(_))), "{coding}");
        }
        assert!(send("identity").await.is_ok() && send("").await.is_ok());
        assert_eq!(read(None, "\u{feff}{\"id\":\"a\"}").await.unwrap().id.as_deref(), Some("a"));
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
