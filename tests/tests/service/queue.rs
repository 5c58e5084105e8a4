//! The queue: its order, its limits, and that it survives a restart.

use serde_json::{Value, json};
use tests::Server;

fn slow(id: &str) -> Value {
    json!({"id": id, "input": {"prompt": "step=20", "num_inference_steps": 20}})
}

#[tokio::test]
async fn without_a_queue_a_second_prediction_is_refused() {
    let server = Server::start(&["--queue-size", "0"]).await;
    // Until it is cancelled. It is busy from the moment of the answer, not from the start of the prediction on.
    let endless = |id: &str| json!({"id": id, "input": {"prompt": "step=60000"}});
    for n in 0..20 {
        let id = format!("endless-{n}");
        assert_eq!(server.predict_async(&endless(&id)).await.status, 202);
        assert_eq!(server.get("/health-check").await.json["status"], "BUSY", "{n}");
        server.json("POST", &format!("/predictions/{id}/cancel"), &[], &json!({})).await;
        server.ended(&id).await;
    }
    assert_eq!(server.predict_async(&endless("a")).await.status, 202);
    let busy = server.predict(&slow("b")).await;
    assert_eq!(
        (busy.status, busy.json),
        (409, json!({"error": "At capacity - all prediction slots busy", "status": "failed"}))
    );
    assert_eq!(server.predict(&json!({"input": {}})).await.status, 422, "input is validated first");
    server.json("POST", "/predictions/a/cancel", &[], &json!({})).await;
    server.ended("a").await;
    for _ in 0..50 {
        let quick = json!({"input": {"prompt": "a", "num_inference_steps": 1, "width": 512}});
        assert_eq!(server.predict(&quick).await.status, 200, "the slot is free before the response is sent");
    }
}

#[tokio::test]
async fn a_full_queue_answers_with_retry_after() {
    let server = Server::start(&["--queue-size", "2"]).await;
    for id in ["a", "b", "c"] {
        assert_eq!(server.predict_async(&slow(id)).await.status, 202);
    }
    let full = server.predict_async(&slow("d")).await;
    assert_eq!((full.status, &full.json["status"]), (429, &json!("failed")));
    assert!(full.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    for id in ["a", "b", "c"] {
        server.ended(id).await;
    }
}

#[tokio::test]
async fn a_queue_is_full_by_its_cost_too() {
    let server = Server::start(&["--queue-cost", "0.5"]).await;
    server.predict(&slow("learns")).await;
    let mut refused = 0;
    for n in 0..6 {
        refused += u32::from(server.predict_async(&slow(&format!("c{n}"))).await.status == 429);
    }
    assert!((2..5).contains(&refused), "{refused}");
}

#[tokio::test]
async fn first_in_first_out_and_estimates() {
    let server = Server::start(&[]).await;
    let measured = server.predict(&slow("learns")).await.json["metrics"]["predict_time"].as_f64().unwrap();
    for n in 0..4 {
        server.predict_async(&slow(&format!("q{n}"))).await;
    }
    let metrics = server.get("/predictions/q3").await.json["metrics"].clone();
    assert_eq!(metrics["queue_position"], 2);
    // Two wait before it, one runs, and all take as long as the one that was measured.
    let left = metrics["seconds_left"].as_f64().unwrap();
    assert!((2.0 * 20.0 * 0.02..=4.0 * measured).contains(&left), "{left} after one that took {measured}");
    let mut started = Vec::new();
    for n in 0..4 {
        started.push(server.ended(&format!("q{n}")).await["started_at"].as_str().unwrap().to_owned());
    }
    assert!(started.is_sorted(), "{started:?}");
}

#[tokio::test]
async fn several_workers_and_several_jobs_share_the_queue() {
    let server = Server::launch(&["--device", "cpu,cuda:0", "--workers", "2"], &[("STAND_IN_JOBS", "2")]);
    server.until_metric(r#"syncdiffusion_workers{state="ready"}"#, 4.0).await;
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    for n in 0..8 {
        let input = json!({"prompt": format!("until={}", go.display()), "num_inference_steps": 3});
        server.predict_async(&json!({"id": format!("m{n}"), "input": input})).await;
    }
    for n in 0..8 {
        server.until(&format!("/predictions/m{n}"), |is| is["status"] == "processing").await;
    }
    assert_eq!(server.get("/health-check").await.json["status"], "BUSY");
    std::fs::write(&go, "").unwrap();
    for n in 0..8 {
        assert_eq!(server.ended(&format!("m{n}")).await["status"], "succeeded");
    }
}

#[tokio::test]
async fn a_killed_server_resumes_its_queue() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    let ended = server.predict(&slow("ended")).await.json;
    for n in 0..4 {
        server.predict_async(&slow(&format!("k{n}"))).await;
    }
    server.until("/predictions/k0", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
    server.kill();

    let mut server = Server::launch_in(dir.path(), &[], &[]);
    assert_eq!(server.get("/predictions/ended").await.json, ended);
    server.until("/predictions/k0", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
    server.kill();

    let server = Server::launch_in(dir.path(), &[], &[]);
    let lost = server.ended("k0").await;
    assert_eq!(lost["status"], "failed");
    assert_eq!(lost["error"], "it was interrupted 2 times by the end of the server or its worker");
    let mut started = Vec::new();
    for n in 1..4 {
        let prediction = server.ended(&format!("k{n}")).await;
        assert_eq!(prediction["status"], "succeeded");
        started.push(prediction["started_at"].as_str().unwrap().to_owned());
    }
    assert!(started.is_sorted(), "{started:?}");
}

#[tokio::test]
async fn retention_removes_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    for n in 0..4 {
        server.predict(&json!({"id": format!("o{n}"), "input": {"prompt": "a", "num_inference_steps": 1}})).await;
    }
    server.kill();
    let server = Server::launch_in(dir.path(), &["--keep-count", "2"], &[]);
    server.until("/predictions", |page| page["results"].as_array().unwrap().len() == 2).await;
    assert_eq!(server.get("/predictions/o1").await.status, 404);
    assert_eq!(server.get("/predictions/o2").await.status, 200);
}

#[tokio::test]
async fn a_data_folder_is_locked_by_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    let second = std::process::Command::new(tests::binary())
        .args(["serve", "--host", "127.0.0.1", "--port", "0", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && error.contains("another server uses"), "{error}");
}
