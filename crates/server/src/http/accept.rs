//! What a request prefers: `Prefer` (RFC 7240), `Accept`, `Cancel-After`.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};

use super::error::Error;
use crate::units;

/// The longest header of a trace in bytes: it is stored with its prediction.
const MAX_TRACE: usize = 8 << 10;

/// How a client wants to be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefer {
    /// At once, while the prediction continues.
    pub(super) respond_async: bool,
    /// After this time at the latest.
    pub(super) wait: Option<Duration>,
    /// With previews, if events are streamed.
    pub(super) preview: bool,
}

impl Prefer {
    /// Reads all `Prefer` headers. What is unknown is ignored, as the RFC requires.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let values = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => prefer.respond_async = true,
                "preview" => prefer.preview = true,
                // The first of several counts.
                "wait" => prefer.wait = prefer.wait.or_else(|| value.parse().ok().map(Duration::from_secs)),
                _ => {}
            }
        }
        prefer
    }
}

/// Whether server-sent events are requested.
pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    media_types(headers).any(|(kind, _)| kind == "text/event-stream")
}

/// Whether a page is preferred to JSON: browsers name `text/html`, programs do not.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    let quality = |wanted: &str| {
        media_types(headers).filter(|(kind, _)| kind == wanted).map(|(_, quality)| quality).fold(0.0, f64::max)
    };
    quality("text/html") > quality("application/json")
}

/// The media types of `Accept`, with their quality.
fn media_types(headers: &HeaderMap) -> impl Iterator<Item = (String, f64)> {
    let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|part| {
        let mut parts = part.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|parameter| parameter.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        (kind, quality)
    })
}

/// The `Cancel-After` of a request: seconds or `1m30s`, from 5 seconds to 24 hours.
pub(super) fn cancel_after(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let Some(value) = headers.get("cancel-after") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let wrong =
        |message| Error::Body(axum::http::StatusCode::UNPROCESSABLE_ENTITY, format!("`Cancel-After`: {message}"));
    let duration = units::whole_duration(text).map_err(wrong)?;
    if !(Duration::from_secs(5)..=Duration::from_hours(24)).contains(&duration) {
        return Err(wrong(format!("`{text}` is not between 5 seconds and 24 hours")));
    }
    Ok(Some(duration))
}

/// The headers of a trace, to be passed on; one that is too long is left out, as W3C's rules allow.
pub(super) fn trace(headers: &HeaderMap) -> Vec<(String, String)> {
    [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")]
        .into_iter()
        .filter_map(|name| {
            let value = headers.get(&name)?.to_str().ok().filter(|value| value.len() <= MAX_TRACE)?;
            Some((name.to_string(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn prefer_is_read_as_the_rfc_says() {
        let read = |value| Prefer::read(&headers("prefer", value));
        let wait = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(read("respond-async"), Prefer { respond_async: true, ..Prefer::default() });
        assert_eq!(read("Respond-Async, wait=5"), Prefer { respond_async: true, wait: wait(5), preview: false });
        assert_eq!(read("wait=\"10\"; x=y"), Prefer { wait: wait(10), ..Prefer::default() });
        assert_eq!(read("wait=1, wait=2"), Prefer { wait: wait(1), ..Prefer::default() });
        assert_eq!(read("wait=x, return=minimal, respond-asynchronous"), Prefer::default());
        assert_eq!(read("preview"), Prefer { preview: true, ..Prefer::default() });
    }

    #[test]
    fn pages_are_for_browsers() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert!(wants_page(&headers("accept", browser)));
        assert!(!wants_page(&headers("accept", "*/*")) && !wants_page(&HeaderMap::new()));
        assert!(!wants_page(&headers("accept", "application/json, text/html;q=0.5")));
        assert!(wants_events(&headers("accept", "application/json, text/event-stream;q=0.9")));
    }

    #[test]
    fn cancel_after_has_bounds() {
        assert_eq!(cancel_after(&headers("cancel-after", "1m30s")).unwrap(), Some(Duration::from_secs(90)));
        assert_eq!(cancel_after(&HeaderMap::new()).unwrap(), None);
        for bad in ["4", "25h", "soon", ""] {
            assert!(cancel_after(&headers("cancel-after", bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trace_that_is_too_long_is_left_out() {
        let long = |length: usize| "x".repeat(length).parse().unwrap();
        let read = |length: usize| {
            let parent = (HeaderName::from_static("traceparent"), "00-1-2-01".parse().unwrap());
            trace(&HeaderMap::from_iter([parent, (HeaderName::from_static("tracestate"), long(length))])).len()
        };
        assert_eq!((read(MAX_TRACE), read(MAX_TRACE + 1)), (2, 1));
    }

    proptest::proptest! {
        /// Whatever a client sends is read or refused, without a panic; `wait` is read as it was written.
        #[test]
        fn any_header_is_read(text in "[ -~]{0,60}", seconds: u64) {
            let value = |text: &str| text.parse::<axum::http::HeaderValue>().unwrap();
            for name in ["prefer", "accept", "cancel-after", "traceparent"] {
                let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value(&text))]);
                let _ = (Prefer::read(&headers), wants_events(&headers), wants_page(&headers));
                let _ = (cancel_after(&headers), trace(&headers));
            }
            let prefer = value(&format!("wait={seconds}, {text}"));
            let headers = HeaderMap::from_iter([(HeaderName::from_static("prefer"), prefer)]);
            proptest::prop_assert_eq!(Prefer::read(&headers).wait, Some(Duration::from_secs(seconds)));
        }
    }
}
