//! Telemetry: the log on stderr, metrics for Prometheus, and spans by OTLP with the feature `otel`.

mod log;
mod metrics;
#[cfg(feature = "otel")]
mod traces;

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use axum::http::HeaderMap;
use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use metrics::{Metrics, markdown};

use crate::config::{LogFormat, Telemetry};

/// How long the process waits for whoever reads its log before it ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log of this process, once there is one.
static LOG: OnceLock<log::Log> = OnceLock::new();

/// Keeps telemetry running. Dropping it sends the spans that are left, and writes what is left of the log.
#[derive(Debug)]
#[must_use]
pub(crate) struct TelemetryGuard {
    #[cfg(feature = "otel")]
    traces: Option<traces::Exporter>,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        #[cfg(feature = "otel")]
        drop(self.traces.take());
        flush();
    }
}

/// Writes the log to stderr, filtered by `usual` unless the flags say otherwise, and sends spans where the flags say.
///
/// # Errors
/// If there can be no thread that writes the log.
pub(crate) fn start(config: &Telemetry, usual: &str) -> io::Result<TelemetryGuard> {
    let log = log::Log::to_stderr(config.log_format)?;
    let _ = LOG.set(log.clone());
    let filter = config.filter().unwrap_or(usual);
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = match config.log_format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(log.clone())
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        // The ids of request and prediction are fields of the span; they belong beside the message.
        LogFormat::Json => json_subscriber::fmt::layer()
            .with_writer(log.clone())
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
    Ok(TelemetryGuard {
        #[cfg(feature = "otel")]
        traces,
    })
}

/// Says something on stderr beside the lines of the log, in turn with them. Nobody may be reading.
pub(crate) fn say(words: impl Display) {
    match LOG.get() {
        Some(log) => _ = log.clone().write_all(format!("{words}\n").as_bytes()),
        None => _ = writeln!(io::stderr(), "{words}"),
    }
}

/// Waits a moment until the log is written, before the process ends.
pub(crate) fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(LAST_LINES);
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
