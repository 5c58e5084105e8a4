//! The metrics of `/metrics`, each described once: for Prometheus, and for the table in `docs/operating.md`.
//!
//! They are recorded where they arise, by the facade `metrics`; gauges are read from the service for each request.

use std::fmt::Write as _;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use prediction::Status;
use prediction::service::Counts;
use prediction::store::Usage;

/// How often recorded values are aggregated, so that memory stays bounded without requests.
const UPKEEP: Duration = Duration::from_secs(10);

/// The most names of tokens that metrics have; `/usage` has all.
const MAX_NAMES: usize = 1000;

/// One metric.
struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static str,
    help: &'static str,
}

/// The kinds of Prometheus; a histogram has upper bounds of its buckets.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

use Kind::{Counter, Gauge, Histogram};

/// Seconds that work takes: from a twentieth of a second to an hour.
const WORK: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
/// Seconds that responses take: from a millisecond to those that wait for a picture.
const ANSWERS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Seconds that batches take.
const BATCHES: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
/// Shares of one.
const SHARES: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// All metrics.
const METRICS: &[Metric] = &[
    metric("syncdiffusion_build_info", Gauge, Unit::Count, "`version`", "Always 1; the version is the label."),
    metric("syncdiffusion_queue_depth", Gauge, Unit::Count, "", "Predictions that wait for a worker."),
    metric(
        "syncdiffusion_queue_unserved",
        Gauge,
        Unit::Count,
        "`version`",
        "Waiting predictions that no server has a worker for, by the version of the model that they wait for.",
    ),
    metric(
        "syncdiffusion_ready",
        Gauge,
        Unit::Count,
        "",
        "1 while predictions are accepted, as `/ready` says, else 0.",
    ),
    metric("syncdiffusion_predictions_running", Gauge, Unit::Count, "", "Predictions that are assigned to a worker."),
    metric("syncdiffusion_queue_wait_seconds", Histogram(WORK), Unit::Seconds, "", "Time from acceptance to a worker."),
    metric(
        "syncdiffusion_predict_seconds",
        Histogram(WORK),
        Unit::Seconds,
        "`status`",
        "Time from assignment to a worker to the end.",
    ),
    metric("syncdiffusion_predictions_total", Counter, Unit::Count, "`status`", "Predictions that have ended."),
    metric(
        "syncdiffusion_usage_predictions_total",
        Counter,
        Unit::Count,
        "`name`",
        "Predictions that have ended, by the name of the token; this one and the next two survive restarts.",
    ),
    metric(
        "syncdiffusion_usage_megapixels_total",
        Counter,
        Unit::Count,
        "`name`",
        "Whole millions of pixels of pictures, by the name of the token.",
    ),
    metric(
        "syncdiffusion_usage_seconds_total",
        Counter,
        Unit::Count,
        "`name`",
        "Whole seconds that workers had predictions, by the name of the token.",
    ),
    metric(
        "syncdiffusion_predictions_refused_total",
        Counter,
        Unit::Count,
        "`reason`",
        "Predictions that were refused although their input was valid.",
    ),
    metric(
        "syncdiffusion_workers",
        Gauge,
        Unit::Count,
        "`state`",
        "Workers by state: `loading`, `ready`, `lost` (a replacement is starting), `failed`, `dead`.",
    ),
    metric(
        "syncdiffusion_worker_restarts_total",
        Counter,
        Unit::Count,
        "`worker`",
        "Worker processes that were started to replace a lost one.",
    ),
    metric(
        "syncdiffusion_worker_peak_memory_bytes",
        Gauge,
        Unit::Bytes,
        "`worker`",
        "Largest resident memory that a worker has reported.",
    ),
    metric(
        "syncdiffusion_windows_total",
        Counter,
        Unit::Count,
        "`stage`",
        "Windows that were computed; its rate is windows per second.",
    ),
    metric("syncdiffusion_batches_total", Counter, Unit::Count, "`stage`", "Batches of windows that were computed."),
    metric(
        "syncdiffusion_batch_fill_ratio",
        Histogram(SHARES),
        Unit::Count,
        "`stage`",
        "Windows in a batch, as a share of the maximum.",
    ),
    metric("syncdiffusion_batch_seconds", Histogram(BATCHES), Unit::Seconds, "`stage`", "Time of a batch."),
    metric(
        "syncdiffusion_webhooks_total",
        Counter,
        Unit::Count,
        "`result`",
        "Attempts to deliver a webhook, by result.",
    ),
    metric("syncdiffusion_uploads_total", Counter, Unit::Count, "`result`", "Attempts to upload a picture, by result."),
    metric(
        "syncdiffusion_bucket_failures_total",
        Counter,
        Unit::Count,
        "",
        "Requests to the bucket of `--pictures` that failed; they are tried again.",
    ),
    metric(
        "syncdiffusion_http_requests_total",
        Counter,
        Unit::Count,
        "`method`, `route`, `status`",
        "Answered requests; status 499 means that the client disconnected first.",
    ),
    metric(
        "syncdiffusion_http_request_seconds",
        Histogram(ANSWERS),
        Unit::Seconds,
        "`method`, `route`",
        "Time to the header of the response, which for a synchronous prediction is its end.",
    ),
    metric("syncdiffusion_http_connections", Gauge, Unit::Count, "", "Open connections."),
    metric(
        "syncdiffusion_log_lines_lost_total",
        Counter,
        Unit::Count,
        "",
        "Lines of the log that were lost because nobody read them.",
    ),
];

const fn metric(name: &'static str, kind: Kind, unit: Unit, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, unit, labels, help }
}

/// All that was recorded in this process.
#[derive(Clone)]
pub(crate) struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder of metrics, once in a process.
    ///
    /// # Errors
    /// If there is one already.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let recorder = builder()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| anyhow::anyhow!("{error}"))?;
        describe();
        Ok(Self(handle))
    }

    /// Aggregates recorded values as long as the process lives.
    pub(crate) async fn upkeep(self) {
        loop {
            tokio::time::sleep(UPKEEP).await;
            self.0.run_upkeep();
        }
    }

    /// All metrics as Prometheus reads them, with those of the service as they are now.
    pub(crate) fn render(&self, counts: &Counts, usage: &[Usage]) -> String {
        gauge!("syncdiffusion_queue_depth").set(counts.waiting as f64);
        gauge!("syncdiffusion_ready").set(f64::from(u8::from(counts.ready)));
        for (version, waiting) in &counts.unserved {
            gauge!("syncdiffusion_queue_unserved", "version" => version.clone()).set(*waiting as f64);
        }
        gauge!("syncdiffusion_predictions_running").set(counts.running as f64);
        for (state, count) in counts.workers {
            gauge!("syncdiffusion_workers", "state" => state).set(count as f64);
        }
        for Usage { name, predictions, megapixels, seconds, .. } in usage.iter().take(MAX_NAMES) {
            counter!("syncdiffusion_usage_predictions_total", "name" => name.clone()).absolute(*predictions);
            counter!("syncdiffusion_usage_megapixels_total", "name" => name.clone()).absolute(*megapixels as u64);
            counter!("syncdiffusion_usage_seconds_total", "name" => name.clone()).absolute(*seconds as u64);
        }
        self.0.render()
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    METRICS.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        Histogram(bounds) => builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds),
        Counter | Gauge => Ok(builder),
    })
}

/// Describes every metric, and starts those whose labels are known, so that their first change is seen as one.
fn describe() {
    for Metric { name, kind, unit, help, .. } in METRICS {
        match kind {
            Counter => describe_counter!(*name, *unit, *help),
            Gauge => describe_gauge!(*name, *unit, *help),
            Histogram(_) => describe_histogram!(*name, *unit, *help),
        }
    }
    gauge!("syncdiffusion_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for status in Status::ALL.into_iter().filter(|status| status.is_terminal()) {
        counter!("syncdiffusion_predictions_total", "status" => status.name()).increment(0);
    }
}

/// The table of all metrics for the documentation.
pub(crate) fn markdown() -> String {
    let mut text = String::from("| name | kind | labels | what it is |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, help, .. } in METRICS {
        let kind = match kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram(_) => "histogram",
        };
        let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {help} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for Metric { name, kind, unit, help, .. } in METRICS {
            assert!(name.starts_with("syncdiffusion_") && help.ends_with('.'), "{name}");
            assert_eq!(name.ends_with("_total"), matches!(kind, Counter), "{name}");
            assert_eq!(name.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
            assert_eq!(name.ends_with("_bytes"), *unit == Unit::Bytes, "{name}");
        }
    }

    #[test]
    fn everything_recorded_has_a_description() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::histogram!("syncdiffusion_queue_wait_seconds").record(0.3);
        });
        let text = recorder.handle().render();
        assert!(text.contains("# HELP syncdiffusion_queue_wait_seconds Time from acceptance to a worker."), "{text}");
        assert!(text.contains(r#"syncdiffusion_queue_wait_seconds_bucket{le="0.25"} 0"#), "{text}");
        assert!(text.contains(r#"syncdiffusion_queue_wait_seconds_bucket{le="0.5"} 1"#), "{text}");
        assert!(text.contains(r#"syncdiffusion_predictions_total{status="succeeded"} 0"#), "{text}");
    }
}
