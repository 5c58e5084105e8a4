//! The figures of `/metrics`, each described once: what Prometheus is told of it, and the table in `docs/operating.md`.
//!
//! They are recorded where they arise, by the facade `metrics`; gauges are read from the service when somebody asks.

use std::fmt::Write as _;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use prediction::Status;
use prediction::service::Counts;

/// How often what was recorded is put together, whether or not anybody asks.
const UPKEEP: Duration = Duration::from_secs(10);

/// One figure.
struct Figure {
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
/// Seconds that answers take: from a millisecond on, and up to those that wait for a picture.
const ANSWERS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Seconds that batches take.
const BATCHES: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
/// Shares of one.
const SHARES: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// All figures.
const FIGURES: &[Figure] = &[
    figure("syncdiffusion_build_info", Gauge, Unit::Count, "`version`", "Always 1; the version is the label."),
    figure("syncdiffusion_queue_depth", Gauge, Unit::Count, "", "Predictions that wait for a worker."),
    figure("syncdiffusion_predictions_running", Gauge, Unit::Count, "", "Predictions that workers hold."),
    figure("syncdiffusion_queue_wait_seconds", Histogram(WORK), Unit::Seconds, "", "Time from acceptance to a worker."),
    figure(
        "syncdiffusion_predict_seconds",
        Histogram(WORK),
        Unit::Seconds,
        "`status`",
        "Time from a worker to the end, of predictions that reached one.",
    ),
    figure("syncdiffusion_predictions_total", Counter, Unit::Count, "`status`", "Predictions that have ended."),
    figure(
        "syncdiffusion_predictions_refused_total",
        Counter,
        Unit::Count,
        "`reason`",
        "Predictions that were not taken, though their input was valid.",
    ),
    figure(
        "syncdiffusion_workers",
        Gauge,
        Unit::Count,
        "`state`",
        "Workers by what can be expected of them: `loading`, `ready`, `lost` (another is being started), `failed`, `dead`.",
    ),
    figure(
        "syncdiffusion_worker_restarts_total",
        Counter,
        Unit::Count,
        "`worker`",
        "Worker processes that were started in place of a lost one.",
    ),
    figure(
        "syncdiffusion_worker_peak_memory_bytes",
        Gauge,
        Unit::Bytes,
        "`worker`",
        "Largest resident memory that a worker has told of.",
    ),
    figure(
        "syncdiffusion_windows_total",
        Counter,
        Unit::Count,
        "`stage`",
        "Windows that were computed; its rate is windows per second.",
    ),
    figure("syncdiffusion_batches_total", Counter, Unit::Count, "`stage`", "Batches of windows that were computed."),
    figure(
        "syncdiffusion_batch_fill_ratio",
        Histogram(SHARES),
        Unit::Count,
        "`stage`",
        "Windows of a batch over the most that a batch may have.",
    ),
    figure("syncdiffusion_batch_seconds", Histogram(BATCHES), Unit::Seconds, "`stage`", "Time a batch takes."),
    figure(
        "syncdiffusion_webhooks_total",
        Counter,
        Unit::Count,
        "`result`",
        "Webhooks that were sent, by what came of it.",
    ),
    figure(
        "syncdiffusion_uploads_total",
        Counter,
        Unit::Count,
        "`result`",
        "Pictures that were sent away, by what came of it.",
    ),
    figure(
        "syncdiffusion_http_requests_total",
        Counter,
        Unit::Count,
        "`method`, `route`, `status`",
        "Requests that were answered; status 499 is a client that left before.",
    ),
    figure(
        "syncdiffusion_http_request_seconds",
        Histogram(ANSWERS),
        Unit::Seconds,
        "`method`, `route`",
        "Time to the header of the answer, which for a prediction that is waited for is its end.",
    ),
    figure("syncdiffusion_http_connections", Gauge, Unit::Count, "", "Connections that are open."),
];

const fn figure(name: &'static str, kind: Kind, unit: Unit, labels: &'static str, help: &'static str) -> Figure {
    Figure { name, kind, unit, labels, help }
}

/// All that was recorded in this process.
#[derive(Clone)]
pub(crate) struct Figures(PrometheusHandle);

impl Figures {
    /// Makes this the place where figures are recorded, once in a process.
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

    /// Keeps what was recorded small as long as the process lives.
    pub(crate) async fn upkeep(self) {
        loop {
            tokio::time::sleep(UPKEEP).await;
            self.0.run_upkeep();
        }
    }

    /// All figures as Prometheus reads them, with those of the service as they are now.
    pub(crate) fn render(&self, counts: &Counts) -> String {
        gauge!("syncdiffusion_queue_depth").set(counts.waiting as f64);
        gauge!("syncdiffusion_predictions_running").set(counts.running as f64);
        for (state, count) in counts.workers {
            gauge!("syncdiffusion_workers", "state" => state).set(count as f64);
        }
        self.0.render()
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    FIGURES.iter().try_fold(PrometheusBuilder::new(), |builder, figure| match figure.kind {
        Histogram(bounds) => builder.set_buckets_for_metric(Matcher::Full(figure.name.to_owned()), bounds),
        Counter | Gauge => Ok(builder),
    })
}

/// Tells what every figure is, and begins those whose labels are known, so that their first change is seen as one.
fn describe() {
    for Figure { name, kind, unit, help, .. } in FIGURES {
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

/// The table of all figures for the documentation.
pub(crate) fn markdown() -> String {
    let mut text = String::from("| name | kind | labels | what it is |\n|---|---|---|---|\n");
    for Figure { name, kind, labels, help, .. } in FIGURES {
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
        for Figure { name, kind, unit, help, .. } in FIGURES {
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
