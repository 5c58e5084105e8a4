//! Workers that crash, hang, and write garbage.

use std::time::Duration;

use serde_json::{Value, json};
use tests::Server;

fn job(prompt: &str) -> Value {
    json!({"input": {"prompt": prompt, "num_inference_steps": 6, "width": 512}})
}

#[tokio::test]
async fn a_lost_worker_is_replaced_and_its_prediction_tried_again() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("crashed");
    let answer = server.predict(&job(&format!("crash-once={}", file.display()))).await;
    assert_eq!(answer.json["status"], "succeeded", "{}", answer.text);
    assert!(file.exists());
    assert!(answer.json["logs"].as_str().unwrap().contains("the worker was lost (exit status: 3"), "{}", answer.text);
}

#[tokio::test]
async fn a_prediction_that_kills_its_worker_twice_fails_alone() {
    let server = Server::launch(&[], &[("STAND_IN_JOBS", "3")]);
    server.until_health(&["READY"]).await;
    for id in ["before", "beside"] {
        server.predict_async(&json!({"id": id, "input": {"prompt": "step=20", "num_inference_steps": 30}})).await;
    }
    let killer = server.predict(&job("crash")).await;
    assert_eq!(killer.json["status"], "failed");
    let error = killer.json["error"].as_str().unwrap();
    assert!(error.starts_with("the worker was lost 2 times while it made this prediction: exit status: 3"), "{error}");
    assert!(error.contains("the stand-in crashes"), "{error}");
    for id in ["before", "beside"] {
        assert_eq!(server.ended(id).await["status"], "succeeded");
    }
    server.until_health(&["READY"]).await;
    assert_eq!(server.predict(&job("a")).await.json["status"], "succeeded");
}

#[tokio::test]
async fn a_fatal_error_is_reported_in_its_own_words() {
    let server = Server::start(&[]).await;
    let answer = server.predict(&job("fatal")).await;
    assert_eq!(answer.json["status"], "failed");
    assert!(answer.json["error"].as_str().unwrap().contains("a sticky error of the device"), "{}", answer.text);
    server.until_health(&["READY"]).await;
}

#[tokio::test]
async fn a_worker_that_hangs_is_replaced() {
    let server = Server::start(&["--hang-timeout", "300ms"]).await;
    let answer = server.predict(&job("hang")).await;
    assert_eq!(answer.json["status"], "failed");
    assert!(answer.json["error"].as_str().unwrap().contains("it said nothing of its jobs in time"), "{}", answer.text);
    server.until_health(&["READY"]).await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(server.predict(&job("a")).await.json["status"], "succeeded", "an idle worker does not hang");
}

#[tokio::test]
async fn a_worker_that_hangs_while_idle_is_replaced_at_its_next_job() {
    let server = Server::start(&["--hang-timeout", "300ms"]).await;
    crate::killing::signal_worker(&server, "STOP");
    let answer = server.predict(&job("a")).await;
    assert_eq!(answer.json["status"], "succeeded", "{}", answer.text);
    assert!(answer.json["logs"].as_str().unwrap().contains("the worker was lost (it said nothing"), "{}", answer.text);
}

#[tokio::test]
async fn garbage_on_stdout_is_ignored() {
    let server = Server::start(&[]).await;
    assert_eq!(server.predict(&job("garbage")).await.json["status"], "succeeded");
    server.logged("worker sent something that is not an event").await;
}

#[tokio::test]
async fn a_worker_that_loads_too_slowly_is_abandoned() {
    let server = Server::launch(&["--setup-timeout", "200ms"], &[("STAND_IN_LOAD_MS", "20000")]);
    let health = server.until_health(&["SETUP_FAILED"]).await;
    assert!(health["setup"]["logs"].as_str().unwrap().contains("it did not load in time"), "{health}");
}
