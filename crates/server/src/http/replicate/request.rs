//! The body of a request for a prediction, as Replicate has it.

use std::cell::Cell;
use std::fmt;

use axum::extract::{FromRef, FromRequest, Request};
use axum::http::StatusCode;
use prediction::input::Given;
use prediction::input::validate::Detail;
use prediction::shown::shown_up_to;
use prediction::store::Key;
use prediction::webhook::EventKind;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use tokio::sync::OwnedSemaphorePermit;

use crate::http::body::{self, Keyed};
use crate::http::error::Error;
use crate::http::room::Bodies;

/// How many unknown names are reported.
const MAX_NAMES: usize = 16;

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct CreateRequest {
    /// `OWNER/NAME`, `OWNER/NAME:VERSION` or `VERSION`.
    pub(super) version: Option<String>,
    pub(super) input: Given,
    pub(super) webhook: Option<String>,
    pub(super) events: Vec<EventKind>,
    pub(super) key: Option<Key>,
    /// The room of a body with pictures, which stay until they are stored.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

impl<S: Send + Sync> FromRequest<S> for CreateRequest
where
    Bodies: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        body::json(request, &Bodies::from_ref(state), Self::parse).await
    }
}

impl Keyed for CreateRequest {
    fn keyed(self, key: Option<Key>, held: Option<OwnedSemaphorePermit>) -> Self {
        let room = held.filter(|_| !self.input.sent.is_empty());
        Self { key, room, ..self }
    }
}

impl CreateRequest {
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = body::unmarked(bytes);
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let at = Cell::new("");
        let read = Fields { at: &at }.deserialize(&mut json).and_then(|read| json.end().map(|()| read));
        let (request, unknown) = read.map_err(|error| {
            if !error.is_data() {
                return Error::Body(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}"));
            }
            match at.get() {
                "" => Error::Invalid(vec![detail(&[], "invalid_type", &error.to_string())]),
                name => Error::Invalid(vec![detail(&[name], "invalid_type", &error.to_string())]),
            }
        })?;
        if unknown.is_empty() {
            return Ok(request);
        }
        let one = |name: &String| {
            let name = shown_up_to(name, 64);
            detail(&[], "additional_property_not_allowed", &format!("Additional property {name} is not allowed"))
        };
        Err(Error::Invalid(unknown.iter().map(one).collect()))
    }
}

fn detail(path: &[&str], kind: &str, message: &str) -> Detail {
    let loc = ["body"].iter().chain(path).map(|&name| name.to_owned()).collect();
    Detail { loc, msg: message.to_owned(), kind: kind.to_owned() }
}

/// Reads a request and the names that nobody knows, and notes where it is.
struct Fields<'a> {
    at: &'a Cell<&'static str>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = (CreateRequest, Vec<String>);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = (CreateRequest, Vec<String>);

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut request, mut unknown) = (CreateRequest::default(), Vec::new());
        let (mut events, mut at_end) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            let known = ["version", "input", "stream", "webhook", "webhook_completed", "webhook_events_filter"];
            let name = known.into_iter().find(|known| *known == name).ok_or(name);
            self.at.set(name.as_ref().copied().unwrap_or_default());
            match name {
                Ok("version") => request.version = map.next_value()?,
                Ok("input") => request.input = map.next_value()?,
                // Every prediction can be streamed.
                Ok("stream") => _ = map.next_value::<Option<bool>>()?,
                Ok("webhook") => request.webhook = map.next_value()?,
                Ok("webhook_completed") => at_end = map.next_value::<Option<String>>()?,
                Ok(_) => events = map.next_value::<Option<Vec<EventKind>>>()?,
                Err(name) => {
                    map.next_value::<IgnoredAny>()?;
                    if unknown.len() < MAX_NAMES {
                        unknown.push(name);
                    }
                }
            }
        }
        self.at.set("");
        request.events = events.unwrap_or_else(body::all);
        // What clients sent before there was a filter.
        if let (None, Some(url)) = (&request.webhook, at_end) {
            (request.webhook, request.events) = (Some(url), vec![EventKind::Completed]);
        }
        Ok((request, unknown))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &str) -> Result<CreateRequest, (u16, String)> {
        CreateRequest::parse(body.as_bytes()).map_err(|error| (error.status().as_u16(), error.text()))
    }

    #[test]
    fn what_clients_send_is_read() {
        let body = json!({
            "version": "5a", "input": {"prompt": "a", "size": "1x1"}, "stream": true, "webhook": "http://a/",
            "webhook_completed": "http://b/", "webhook_events_filter": ["completed"]
        });
        let request = parse(&body.to_string()).unwrap();
        assert_eq!((request.version.as_deref(), request.webhook.as_deref()), (Some("5a"), Some("http://a/")));
        assert_eq!(
            (&request.input.value, request.input.unknown.as_slice()),
            (&json!({"prompt": "a"}), &["size".to_owned()][..])
        );
        assert_eq!(request.events, [EventKind::Completed]);
        let nulls = r#"{"version":null,"input":null,"stream":null,"webhook":null,"webhook_events_filter":null}"#;
        let request = parse(nulls).unwrap();
        assert!(request.version.is_none() && request.webhook.is_none() && request.input.value.is_null());
        assert_eq!(request.events, EventKind::ALL);
        let older = parse(r#"{"webhook_completed":"http://b/"}"#).unwrap();
        assert_eq!((older.webhook.as_deref(), older.events), (Some("http://b/"), vec![EventKind::Completed]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, status, words) in [
            ("", 400, "the body is not JSON: EOF"),
            ("{bad", 400, "the body is not JSON: key must be a string"),
            (r#"{"version":"a","webhook":""#, 400, "the body is not JSON"),
            ("{} {}", 400, "trailing characters"),
            ("[]", 422, "expected an object"),
            (r#"{"webhook":5}"#, 422, "webhook: invalid type: integer `5`"),
            (r#"{"version":["x"]}"#, 422, "version: invalid type"),
            (r#"{"webhook_events_filter":["nope"]}"#, 422, "unknown variant `nope`"),
            (r#"{"inputs":{},"id":"x"}"#, 422, "Additional property inputs is not allowed"),
        ] {
            let (was, text) = parse(body).unwrap_err();
            assert!(was == status && text.contains(words), "{body}: {was} {text}");
        }
    }
}
