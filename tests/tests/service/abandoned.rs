//! Servers whose workers are gone permanently: whoever waits is answered, and the process ends or stays, as its flag
//! says.

use std::path::Path;

use serde_json::{Value, json};
use tests::Server;

const FLAG: &str = "--exit-without-workers";

fn job(id: &str, prompt: &str) -> Value {
    json!({"id": id, "input": {"prompt": prompt, "num_inference_steps": 6, "width": 512}})
}

/// A server whose worker was removed after it had loaded, so that it is the last one.
async fn with_a_last_worker(data: &str, arguments: &[&str]) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let worker = dir.path().join("worker");
    std::fs::copy(tests::stand_in(), &worker).unwrap();
    let arguments = [&["--worker", worker.to_str().unwrap()], arguments].concat();
    let server = Server::launch_in(Path::new(data), &arguments, &[]);
    server.until_health(&["READY"]).await;
    server
}

/// Waits until a prediction is accepted.
async fn known(server: &Server, id: &str) {
    server.until(&format!("/predictions/{id}"), |is| is["id"] == id).await;
}

#[tokio::test]
async fn who_waits_is_answered_when_the_last_worker_is_gone_and_the_process_ends_with_a_status_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (data, go) = (dir.path().join("data"), dir.path().join("go"));
    let mut server = with_a_last_worker(data.to_str().unwrap(), &[]).await;
    let crash = format!("crash until={}", go.display());
    let (crashed, second, events) = (job("crashed", &crash), job("second", "a"), job("events", "a"));
    let (crashed, second, events, ()) = tokio::join!(
        server.predict(&crashed),
        async {
            known(&server, "crashed").await;
            server.predict(&second).await
        },
        async {
            known(&server, "crashed").await;
            server.json("POST", "/predictions", &[("accept", "text/event-stream")], &events).await
        },
        async {
            known(&server, "second").await;
            known(&server, "events").await;
            std::fs::write(&go, "").unwrap();
        },
    );
    for answer in [&crashed, &second] {
        assert_eq!((answer.status, &answer.json["status"]), (202, &json!("starting")), "{}", answer.text);
        assert!(answer.json["logs"].as_str().unwrap().contains("no worker is left"), "{}", answer.text);
    }
    assert!(crashed.json["logs"].as_str().unwrap().contains("the worker was lost"), "{}", crashed.text);
    let last = events.text.rsplit("event: ").next().unwrap();
    assert!(last.starts_with("error") && last.contains("no worker is left"), "{}", events.text);
    assert_eq!(server.exit().await.code(), Some(3), "{}", server.log());
    assert!(server.log().contains("no worker is left"));

    // The next start continues with them; the one that crashes its worker fails alone.
    let server = Server::launch_in(&data, &[], &[]);
    for (id, status) in [("crashed", "failed"), ("second", "succeeded"), ("events", "succeeded")] {
        assert_eq!(server.ended(id).await["status"], status, "{id}");
    }
}

#[tokio::test]
async fn a_server_that_stays_says_that_no_worker_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_a_last_worker(dir.path().to_str().unwrap(), &[FLAG, "never"]).await;
    let waits = job("waits", "crash");
    let (waits, ()) = tokio::join!(server.predict(&waits), async {
        let health = server.until_health(&["UNHEALTHY", "DEFUNCT"]).await;
        assert!(health["user_healthcheck_error"].as_str().unwrap().contains("the worker was lost"), "{health}");
    });
    assert_eq!(waits.status, 202, "{}", waits.text);
    let health = server.until_health(&["DEFUNCT"]).await;
    assert!(health["user_healthcheck_error"].as_str().unwrap().contains("restart the server"), "{health}");
    assert_eq!(server.get("/live").await.status, 503);
    let late = server.predict(&job("late", "a")).await;
    assert_eq!((late.status, &late.json["status"]), (503, &json!("failed")), "{}", late.text);
    assert!(late.json["error"].as_str().unwrap().starts_with("no worker is left"), "{}", late.text);
    assert!(!late.headers.contains_key("retry-after"), "it does not pass by itself");
    // Who comes later is not kept waiting either.
    assert!(server.get("/predictions/waits/stream").await.text.contains("event: error"));
    let put = server.json("PUT", "/predictions/waits", &[], &job("waits", "crash")).await;
    assert_eq!((put.status, &put.json["status"]), (202, &json!("starting")));
    assert_eq!(server.send(server.request("POST", "/predictions/waits/cancel")).await.status, 200);
    assert_eq!(server.get("/predictions/waits").await.json["status"], "canceled");
}

#[tokio::test]
async fn what_waits_in_memory_fails_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let server = with_a_last_worker("none", &[FLAG, "never"]).await;
    let (first, second) = (job("first", &format!("crash until={}", go.display())), job("second", "a"));
    let (first, second, ()) = tokio::join!(
        server.predict(&first),
        async {
            known(&server, "first").await;
            server.predict(&second).await
        },
        async {
            known(&server, "second").await;
            std::fs::write(&go, "").unwrap();
        },
    );
    for answer in [first, second] {
        assert_eq!((answer.status, &answer.json["status"]), (200, &json!("failed")), "{}", answer.text);
        assert!(answer.json["error"].as_str().unwrap().contains("no worker is left"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_failed_setup_ends_the_process_only_if_the_flag_says_so() {
    let error = [("STAND_IN_LOAD_ERROR", "no such model")];
    let mut server = Server::launch(&[FLAG, "always"], &error);
    assert_eq!(server.exit().await.code(), Some(3), "{}", server.log());
    let server = Server::launch(&[], &error);
    server.until_health(&["SETUP_FAILED"]).await;
    server.logged("no worker is left").await;
    assert_eq!(server.get("/health-check").await.json["status"], "SETUP_FAILED", "Cog's clients read why");
}

#[tokio::test]
async fn one_worker_of_two_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--workers", "2"];
    let server = Server::launch_in(dir.path(), &arguments, &[]);
    server.until_metric(r#"syncdiffusion_workers{state="ready"}"#, 2.0).await;
    assert_eq!(server.predict(&job("crashes", "crash")).await.json["status"], "failed");
    assert_eq!(server.predict(&job("a", "a")).await.json["status"], "succeeded");
    assert!(!server.log().contains("no worker is left"));
}
