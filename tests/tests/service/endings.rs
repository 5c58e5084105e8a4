//! How predictions are stopped: by a cancellation, by a client that disconnects, by a deadline.

use std::time::Duration;

use serde_json::json;
use tests::Server;

#[tokio::test]
async fn a_cancellation_stops_running_and_queued_predictions() {
    let server = Server::start(&[]).await;
    let slow = |id: &str| json!({"id": id, "input": {"prompt": "step=20"}});
    for id in ["runs", "waits"] {
        server.predict_async(&slow(id)).await;
    }
    server.until("/predictions/runs", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
    let waiting = server.get("/predictions/waits").await.json;
    assert_eq!((&waiting["status"], &waiting["metrics"]["queue_position"]), (&json!("starting"), &json!(0)));
    for id in ["waits", "runs"] {
        let answer = server.send(server.request("POST", &format!("/predictions/{id}/cancel"))).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
        let ended = server.ended(id).await;
        assert_eq!(
            (&ended["status"], &ended["error"], &ended["output"]),
            (&json!("canceled"), &json!(null), &json!(null))
        );
        assert!(ended["metrics"]["step"].as_u64() < Some(50), "it did not run to its end: {ended}");
    }
    let after = server.send(server.request("POST", "/predictions/runs/cancel")).await;
    assert_eq!((after.status, after.text.as_str()), (404, "{}"));
    server.until_health(&["READY"]).await;
}

#[tokio::test]
async fn a_cancellation_answers_the_waiting_client() {
    let server = Server::start(&[]).await;
    let body = json!({"id": "sy-1", "input": {"prompt": "step=20"}});
    let (answer, ()) = tokio::join!(server.predict(&body), async {
        server.until("/predictions/sy-1", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
        server.send(server.request("POST", "/predictions/sy-1/cancel")).await;
    });
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("canceled")));
    assert!(answer.json["logs"].as_str().unwrap().contains("1/50"));
    assert!(answer.json["metrics"]["predict_time"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_disconnect_cancels_a_prediction_unless_it_is_async() {
    let server = Server::start(&[]).await;
    let leave = |id: &'static str, prefer: &'static str| {
        let body = json!({"id": id, "input": {"prompt": "step=20", "num_inference_steps": 20}}).to_string();
        let request = server.request("POST", "/predictions").header("content-type", "application/json");
        request.header("prefer", prefer).body(body).timeout(Duration::from_millis(150)).send()
    };
    assert!(leave("gone", "x").await.is_err());
    assert_eq!(server.ended("gone").await["status"], "canceled");
    assert!(leave("waits", "wait=10").await.is_err());
    assert_eq!(server.ended("waits").await["status"], "canceled");
    assert!(leave("stays", "respond-async, wait=10").await.is_err());
    assert_eq!(server.ended("stays").await["status"], "succeeded");
}

#[tokio::test]
async fn a_prediction_ends_at_its_deadline() {
    let server = Server::start(&["--max-predict-seconds", "0.2"]).await;
    let slow = json!({"input": {"prompt": "step=20"}});
    let answer = server.predict(&slow).await;
    assert_eq!(answer.json["status"], "failed");
    assert_eq!(answer.json["error"], "it took longer than the 0.2 seconds that a prediction may take");
    let early = server.json("POST", "/predictions", &[("cancel-after", "1")], &slow).await;
    assert_eq!(
        (early.status, early.json),
        (422, json!({"detail": "`Cancel-After`: `1` is not between 5 seconds and 24 hours"}))
    );

    let server = Server::start(&[]).await;
    let very_slow = json!({"input": {"prompt": "step=1000"}});
    let answer = server.json("POST", "/predictions", &[("cancel-after", "5s")], &very_slow).await;
    assert_eq!(answer.json["status"], "canceled", "{}", answer.text);
    let total = answer.json["metrics"]["total_time"].as_f64().unwrap();
    assert!(total >= 5.0, "{total}");
    assert!(answer.json["metrics"]["step"].as_u64() < Some(50), "{}", answer.text);
}

#[tokio::test]
async fn a_shutdown_finishes_what_runs_and_keeps_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    for id in ["runs", "waits"] {
        server.predict_async(&json!({"id": id, "input": {"prompt": "step=10", "num_inference_steps": 20}})).await;
    }
    let answer = server.send(server.request("POST", "/shutdown")).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    assert!(server.exit().await.success());
    let server = Server::launch_in(dir.path(), &[], &[("STAND_IN_LOAD_MS", "300")]);
    assert_eq!(server.get("/predictions/runs").await.json["status"], "succeeded");
    assert_eq!(server.get("/predictions/waits").await.json["status"], "starting");
    assert_eq!(server.ended("waits").await["status"], "succeeded");
}

#[tokio::test]
async fn a_signal_answers_who_waits_and_hands_back_what_takes_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::launch_in(dir.path(), &["--grace", "2s"], &[]);
    server.until_health(&["READY"]).await;
    let body = json!({"id": "sync", "input": {"prompt": "step=10", "num_inference_steps": 30}});
    let (answer, ()) = tokio::join!(server.predict(&body), async {
        server.until("/predictions/sync", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
        server.signal("TERM");
    });
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("succeeded")));
    assert!(server.exit().await.success());

    let mut server = Server::launch_in(dir.path(), &["--grace", "100ms"], &[]);
    server.until_health(&["READY"]).await;
    server.predict_async(&json!({"id": "long", "input": {"prompt": "step=20"}})).await;
    server.until("/predictions/long", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
    server.signal("INT");
    assert!(server.exit().await.success());
    let server = Server::launch_in(dir.path(), &[], &[]);
    assert_eq!(server.ended("long").await["status"], "succeeded");
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    server.predict_async(&json!({"id": "long", "input": {"prompt": "step=20"}})).await;
    server.signal("TERM");
    server.logged("grace_seconds=30").await;
    server.signal("TERM");
    assert!(!server.exit().await.success());
    let server = Server::launch_in(dir.path(), &[], &[]);
    assert_eq!(server.ended("long").await["status"], "succeeded");
}

#[tokio::test]
async fn in_memory_predictions_fail_with_a_reason_when_the_server_stops() {
    let mut server = Server::launch(&["--data-dir", "none", "--grace", "100ms"], &[]);
    server.until_health(&["READY"]).await;
    let body = json!({"id": "long", "input": {"prompt": "step=20"}});
    let (answer, ()) = tokio::join!(server.predict(&body), async {
        server.until("/predictions/long", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
        server.signal("TERM");
    });
    assert_eq!(answer.json["error"], "the server was stopped before it was done");
    assert!(server.exit().await.success());
}
