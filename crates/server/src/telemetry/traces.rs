//! Spans by OTLP over HTTP: those of requests, which continue the trace that a client names, and those of predictions.

use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Status, TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::filter::{FilterFn, Filtered};
use tracing_subscriber::layer::Layer as _;
use tracing_subscriber::registry::LookupSpan;

/// The name of this service, unless `OTEL_SERVICE_NAME` says otherwise.
const NAME: &str = "syncdiffusion";
/// The path of traces at an endpoint.
const PATH: &str = "/v1/traces";

/// What sends spans.
#[derive(Debug)]
pub(super) struct Exporter(SdkTracerProvider);

/// Sends what is left.
impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The layer that makes spans of this program spans of OpenTelemetry.
type Spans<S> = Filtered<OpenTelemetryLayer<S, Tracer>, FilterFn, S>;

/// Starts to send spans to an endpoint, if there is one.
pub(super) fn start<S>(endpoint: Option<&str>) -> Option<(Exporter, Spans<S>)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty())?;
    let url = format!("{}{PATH}", endpoint.trim_end_matches('/'));
    let exporter = match SpanExporter::builder().with_http().with_endpoint(url).build() {
        Ok(exporter) => exporter,
        Err(error) => {
            eprintln!("warning: `--otlp-endpoint`: {error}; no spans are sent");
            return None;
        }
    };
    let resource = Resource::builder().with_service_name(NAME).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(NAME));
    Some((Exporter(provider), layer.with_filter(FilterFn::new(is_ours))))
}

/// What the exporter itself does is not part of the traces.
fn is_ours(of: &Metadata<'_>) -> bool {
    ["syncdiffusion", "prediction"].iter().any(|name| of.target().starts_with(name))
}

/// The span of a request continues the trace that its headers name.
pub(super) fn begin(span: &Span, headers: &HeaderMap, method: &str, route: &str) {
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    // It fails only where spans are not sent.
    let _ = span.set_parent(parent);
    span.record("otel.name", format!("{method} {route}"));
    span.record("otel.kind", "server");
    span.set_attribute("http.request.method", method.to_owned());
    span.set_attribute("http.route", route.to_owned());
}

/// The span of a request ends with a status.
pub(super) fn end(span: &Span, status: u16) {
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

/// A span becomes a child of the current one, which is the request's.
pub(super) fn adopt(span: &Span) {
    let _ = span.set_parent(Span::current().context());
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}
