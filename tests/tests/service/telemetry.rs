//! Metrics and the log.

use serde_json::{Value, json};
use tests::Server;

/// The value of a series: its name with its labels.
fn metric(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no `{series}` in\n{text}")).parse().unwrap()
}

/// The log as JSON, one object a line.
pub(crate) fn lines(server: &Server) -> Vec<serde_json::Map<String, Value>> {
    let log = server.log();
    log.lines()
        .map(|line| {
            let object: serde_json::Map<String, Value> =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for key in object.keys() {
                assert_eq!(line.matches(&format!("\"{key}\":")).count(), 1, "`{key}` more than once in {line}");
            }
            object
        })
        .collect()
}

fn job(prompt: &str) -> Value {
    json!({"input": {"prompt": prompt, "num_inference_steps": 4, "width": 512}})
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = Server::start(&["--queue-size", "1"]).await;
    let idle = server.get("/metrics").await;
    assert_eq!(idle.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for (series, value) in [
        ("syncdiffusion_queue_depth", 0.0),
        ("syncdiffusion_predictions_running", 0.0),
        (r#"syncdiffusion_workers{state="ready"}"#, 1.0),
        (r#"syncdiffusion_predictions_total{status="succeeded"}"#, 0.0),
    ] {
        assert_eq!(metric(&idle.text, series), value, "{series}");
    }
    server.predict(&job("a")).await;
    server.predict(&job("fail")).await;
    server.predict(&job("crash")).await;
    server.until_health(&["READY"]).await;
    let quiet = server.get("/metrics").await.text;
    let slow = |id: &str| json!({"id": id, "input": {"prompt": "step=50", "num_inference_steps": 100}});
    for id in ["runs", "waits", "refused"] {
        server.predict_async(&slow(id)).await;
    }
    let text = server.get("/metrics").await.text;
    for (series, value) in [
        ("syncdiffusion_queue_depth", 1.0),
        ("syncdiffusion_predictions_running", 1.0),
        ("syncdiffusion_queue_wait_seconds_count", 5.0),
        (r#"syncdiffusion_predictions_total{status="succeeded"}"#, 1.0),
        (r#"syncdiffusion_predictions_total{status="failed"}"#, 2.0),
        (r#"syncdiffusion_predict_seconds_count{status="succeeded"}"#, 1.0),
        (r#"syncdiffusion_predictions_refused_total{reason="full"}"#, 1.0),
        (r#"syncdiffusion_worker_restarts_total{worker="0"}"#, 2.0),
        (r#"syncdiffusion_worker_peak_memory_bytes{worker="0"}"#, f64::from(1 << 20)),
        (r#"syncdiffusion_http_requests_total{method="POST",route="/predictions",status="429"}"#, 1.0),
        (r#"syncdiffusion_http_requests_total{method="POST",route="/predictions",status="200"}"#, 3.0),
    ] {
        assert_eq!(metric(&text, series), value, "{series}\n{text}");
    }
    for (series, value) in [
        (r#"syncdiffusion_batches_total{stage="denoise"}"#, 7.0),
        (r#"syncdiffusion_windows_total{stage="denoise"}"#, 91.0),
        (r#"syncdiffusion_batch_fill_ratio_bucket{stage="denoise",le="0.4"}"#, 0.0),
        (r#"syncdiffusion_batch_fill_ratio_bucket{stage="denoise",le="0.5"}"#, 7.0),
    ] {
        assert_eq!(metric(&quiet, series), value, "{series}\n{quiet}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(text.contains(&format!("# HELP {family} ")) && text.contains(&format!("# TYPE {family} ")), "{line}");
    }
}

#[tokio::test]
async fn made_up_paths_and_methods_create_no_series() {
    let server = Server::start(&[]).await;
    for n in 0..30 {
        server.send(server.request(&format!("METHOD{n}"), &format!("/made-up/{n}"))).await;
        server.get(&format!("/predictions/none-{n}")).await;
    }
    let text = server.get("/metrics").await.text;
    assert!(!text.contains("made-up") && !text.contains("none-") && !text.contains("METHOD"), "{text}");
    let other = r#"syncdiffusion_http_requests_total{method="other",route="other",status="404"}"#;
    assert_eq!(metric(&text, other), 30.0);
    let route = r#"syncdiffusion_http_requests_total{method="GET",route="/predictions/{id}",status="404"}"#;
    assert_eq!(metric(&text, route), 30.0);
}

#[tokio::test]
async fn a_disconnect_is_counted() {
    let server = Server::start(&[]).await;
    let body = json!({"id": "left", "input": {"prompt": "step=50"}}).to_string();
    let request = server.request("POST", "/predictions").header("content-type", "application/json").body(body);
    assert!(request.timeout(std::time::Duration::from_millis(300)).send().await.is_err());
    server.ended("left").await;
    let series = r#"syncdiffusion_http_requests_total{method="POST",route="/predictions",status="499"}"#;
    server.until_metric(series, 1.0).await;
}

#[tokio::test]
async fn the_log_links_requests_and_predictions() {
    let server = Server::start(&["--log-format", "json", "--log", "debug"]).await;
    let headers = [("x-request-id", "req-7"), ("prefer", "respond-async")];
    let mut body = job("a");
    body["id"] = json!("pred-7\u{1b}[31m\n");
    body["input"]["nope"] = json!(1);
    assert_eq!(server.json("POST", "/predictions", &headers, &body).await.status, 202);
    server.until("/predictions/pred-7%1B%5B31m%0A", |is| is["status"] == "succeeded").await;
    server.logged("prediction ended").await;
    server.logged("/health-check").await;
    let lines = lines(&server);
    for message in [
        "Stripped unknown input fields",
        "prediction accepted",
        "prediction started",
        "prediction ended",
        "request answered",
    ] {
        let line = lines
            .iter()
            .find(|line| line["message"] == message && line.get("request_id").is_some_and(|id| id == "req-7"))
            .unwrap_or_else(|| panic!("no `{message}` of the request in\n{}", server.log()));
        assert_eq!(line["prediction_id"], "pred-7\u{1b}[31m\n", "{line:?}");
        for key in ["timestamp", "level", "target"] {
            assert!(line[key].is_string(), "{line:?}");
        }
    }
    let answered = lines
        .iter()
        .find(|line| line.get("request_id").is_some_and(|id| id == "req-7") && line["message"] == "request answered");
    let answered = answered.unwrap();
    assert_eq!(
        (&answered["status"], &answered["route"], &answered["level"]),
        (&json!(202), &json!("/predictions"), &json!("INFO"))
    );
    let looked = lines.iter().find(|line| line.get("route").is_some_and(|route| route == "/health-check")).unwrap();
    assert_eq!(looked["level"], "DEBUG");
}

#[tokio::test]
async fn a_line_of_the_log_cannot_be_forged() {
    let server = Server::start(&[]).await;
    let mut body = job("a");
    body["id"] = json!("x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J");
    assert_eq!(server.predict(&body).await.status, 200);
    let log = server.logged("prediction ended").await;
    assert!(
        !log.contains("\u{1b}[2J") && log.lines().all(|line| !line.starts_with("2026-01-01T00:00:00Z ERROR")),
        "{log}"
    );
}

#[tokio::test]
async fn lines_of_the_worker_keep_their_level() {
    let server = Server::start(&[]).await;
    let log = server.logged("stand_in: loading `demo`").await;
    let line = log.lines().find(|line| line.contains("stand_in: loading `demo`")).unwrap_or_else(|| panic!("{log}"));
    assert_eq!(line.matches("INFO").count(), 1, "{line}");
    let quiet = Server::start(&["--log", "warn"]).await;
    assert_eq!(quiet.log(), "");
}
