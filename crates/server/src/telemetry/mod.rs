//! Telemetry: the log on stderr, metrics for Prometheus, and spans by OTLP with the feature `otel`.

mod metrics;
#[cfg(feature = "otel")]
mod traces;

use std::io::IsTerminal as _;

use axum::http::HeaderMap;
use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use metrics::{Metrics, markdown};

use crate::config::{LogFormat, Telemetry};

/// Keeps telemetry running. Dropping it sends the spans that are left.
#[derive(Debug)]
#[must_use]
pub(crate) struct TelemetryGuard {
    #[cfg(feature = "otel")]
    _traces: Option<traces::Exporter>,
}

/// Writes the log to stderr, filtered by `usual` unless the flags say otherwise, and sends spans where the flags say.
pub(crate) fn start(config: &Telemetry, usual: &str) -> TelemetryGuard {
    let filter = config.filter().unwrap_or(usual);
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = match config.log_format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        // The ids of request and prediction are fields of the span; they belong beside the message.
        LogFormat::Json => json_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .flatten_span_list_on_top_level(true)
            .boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otel")]
    let (traces, spans) = traces::start(config.otlp_endpoint.as_deref()).unzip();
    #[cfg(feature = "otel")]
    let registry = registry.with(spans);
    registry.init();
    TelemetryGuard {
        #[cfg(feature = "otel")]
        _traces: traces,
    }
}

/// Logs panics like everything else.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or("without a message"));
    }));
}

/// A request begins. Its span continues the trace that its headers name.
pub(crate) fn begin(span: &Span, headers: &HeaderMap, method: &str, route: &str) {
    #[cfg(feature = "otel")]
    traces::begin(span, headers, method, route);
    #[cfg(not(feature = "otel"))]
    let _ = (span, headers, method, route);
}

/// A request was answered.
pub(crate) fn end(span: &Span, status: u16) {
    #[cfg(feature = "otel")]
    traces::end(span, status);
    #[cfg(not(feature = "otel"))]
    let _ = (span, status);
}

/// The span of a prediction. It belongs to the trace of the request that makes it, and outlives the request's span.
pub(crate) fn prediction(request_id: &str) -> Span {
    let span = tracing::error_span!(parent: None, "prediction", prediction_id = tracing::field::Empty, request_id);
    #[cfg(feature = "otel")]
    traces::adopt(&span);
    span
}
