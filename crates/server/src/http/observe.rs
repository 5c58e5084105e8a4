//! What is recorded of every request: its id, a span, a line of the log, metrics.
//!
//! What always holds: path and query are not recorded, because they may contain secrets; the route and the id of the
//! prediction are.

use std::time::Instant;

use axum::RequestExt as _;
use axum::extract::{MatchedPath, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use prediction::shown::shown;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use crate::telemetry;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is accepted from a client.
const MAX_REQUEST_ID: usize = 128;
/// The label of unknown methods and routes, of which there could be too many.
const OTHER: &str = "other";
/// The status of a request whose client disconnected before the response, as nginx has it.
const DISCONNECTED: u16 = 499;

/// The id of a request, for what outlives it.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestId(pub(super) String);

/// Records a request and its response.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or(OTHER, MatchedPath::as_str).to_owned();
    let method = method(request.method());
    // The level of errors, so that the ids are logged whatever the filter is.
    let span = tracing::error_span!(
        "request", request_id = %id, method, route, prediction_id = Empty, otel.name = Empty, otel.kind = Empty
    );
    telemetry::begin(&span, request.headers(), method, &route);
    if let Ok(parameters) = request.extract_parts::<RawPathParams>().await
        && let Some((_, prediction)) = parameters.iter().find(|(name, _)| *name == "id")
    {
        span.record("prediction_id", shown(prediction).to_string());
    }
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut watch = Watch { begun: Instant::now(), span: span.clone(), method, route, status: DISCONNECTED };
    let mut response = next.run(request).instrument(span).await;
    watch.status = response.status().as_u16();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// A request that is being answered. It is dropped at the end, also if the client disconnects.
struct Watch {
    begun: Instant,
    span: Span,
    method: &'static str,
    route: String,
    status: u16,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _inside = self.span.enter();
        let Self { begun, method, status, .. } = *self;
        let (route, seconds) = (std::mem::take(&mut self.route), begun.elapsed().as_secs_f64());
        telemetry::end(&self.span, status);
        // Frequent requests only read, and probes get a 503 while workers load.
        let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
        let failed = status >= 500 && status != StatusCode::SERVICE_UNAVAILABLE;
        if reads && !failed {
            tracing::debug!(status, seconds, "request answered");
        } else {
            tracing::info!(status, seconds, "request answered");
        }
        metrics::histogram!("syncdiffusion_http_request_seconds", "method" => method, "route" => route.clone())
            .record(seconds);
        metrics::counter!(
            "syncdiffusion_http_requests_total", "method" => method, "route" => route, "status" => status.to_string()
        )
        .increment(1);
    }
}

/// The id that the client sent, if it is valid; a new one otherwise.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let sane = |id: &&str| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    given.filter(sane).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The name of a known method.
fn method(method: &Method) -> &'static str {
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_accepted_if_it_is_short_and_visible() {
        let of = |id: &[u8]| {
            let id = HeaderValue::from_bytes(id).unwrap();
            request_id(&HeaderMap::from_iter([(REQUEST_ID, id)]))
        };
        assert_eq!(of(b"a-1/b"), "a-1/b");
        let long = [b'x'; MAX_REQUEST_ID + 1];
        for bad in [&b""[..], b"a b", "ü".as_bytes(), b"\t", &long] {
            assert!(Uuid::parse_str(&of(bad)).is_ok(), "{bad:?}");
        }
    }
}
