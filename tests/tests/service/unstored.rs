//! What the store cannot write: nothing is reported that is not stored, nothing refused is done, and nothing is stuck.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit};
use serde_json::{Value, json};
use tests::{Receiver, Server};

/// Has every write of a server to a file fail, or none.
fn refuse_writes(server: &Server, refuse: bool) {
    let limit = Rlimit { current: refuse.then_some(0), maximum: None };
    rustix::process::prlimit(Pid::from_raw(server.pid()), Resource::Fsize, limit).unwrap();
}

fn slow(id: &str) -> Value {
    json!({"id": id, "input": {"prompt": "step=30", "num_inference_steps": 10, "width": 512}})
}

#[tokio::test]
async fn an_end_that_cannot_be_stored_is_stored_and_reported_when_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let mut server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    let mut body = slow("mid");
    body["webhook"] = format!("{}/mid", receiver.url).into();
    body["webhook_events_filter"] = json!(["completed"]);
    server.predict_async(&body).await;
    server.predict_async(&slow("waits")).await;
    server.until("/predictions/mid", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
    let stream = server.request("GET", "/predictions/mid/stream").send().await.unwrap();

    refuse_writes(&server, true);
    let health = server.until_health(&["UNHEALTHY"]).await;
    let why = health["user_healthcheck_error"].as_str().unwrap();
    assert!(why.contains("predictions.sqlite"), "{why}");
    assert_eq!((server.get("/ready").await.status, server.get("/live").await.status), (503, 200));
    let refused = server.predict_async(&slow("new")).await;
    assert_eq!((refused.status, &refused.json["status"]), (503, &json!("failed")), "{}", refused.text);
    assert_eq!(refused.headers["retry-after"], "5");
    server.logged("the end of a prediction could not be stored").await;
    assert_eq!(server.get("/predictions/mid").await.json["status"], "processing");
    let cancel = |id: &str| server.send(server.request("POST", &format!("/predictions/{id}/cancel")));
    assert_eq!(cancel("waits").await.status, 503, "what is not stored is not done");
    assert_eq!(server.send(server.request("DELETE", "/predictions/mid")).await.status, 409);
    assert_eq!(receiver.sent().len(), 0);

    refuse_writes(&server, false);
    let ended = server.ended("mid").await;
    assert_eq!(ended["status"], "succeeded");
    assert!(ended["output"].as_str().unwrap().starts_with("data:image/png;base64,"));
    let sent = receiver.wait(|sent| !sent.is_empty()).await;
    assert_eq!(sent[0].json["output"], ended["output"]);
    assert_eq!(stream.text().await.unwrap().matches("event: completed").count(), 1);
    server.until_health(&["READY", "BUSY"]).await;
    assert_eq!(server.get("/predictions/new").await.status, 404, "what was refused was not done");
    assert_eq!(server.ended("waits").await["status"], "succeeded");
    server.kill();

    let server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    assert_eq!(server.get("/predictions/mid").await.json, ended);
    assert_eq!(receiver.sent().len(), 1, "it is reported once");
}

#[tokio::test]
async fn a_disk_that_stays_full_does_not_keep_the_server_and_the_prediction_runs_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::launch_in(dir.path(), &["--grace", "100ms"], &[]);
    server.until_health(&["READY"]).await;
    server.predict_async(&slow("mid")).await;
    server.until("/predictions/mid", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
    refuse_writes(&server, true);
    server.until_health(&["UNHEALTHY"]).await;
    server.signal("TERM");
    assert!(server.exit().await.success());
    let server = Server::launch_in(dir.path(), &[], &[]);
    assert_eq!(server.ended("mid").await["status"], "succeeded");
}

#[tokio::test]
async fn a_cancel_that_was_answered_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let mut server = Server::launch_in(dir.path(), &[], &[]);
        server.until_health(&["READY"]).await;
        let (runs, waits) = (format!("runs{round}"), format!("waits{round}"));
        for id in [&runs, &waits] {
            let body = json!({"id": id, "input": {"prompt": "step=20 stubborn", "num_inference_steps": 20}});
            server.predict_async(&body).await;
        }
        server.until(&format!("/predictions/{runs}"), |is| is["status"] == "processing").await;
        for id in [&waits, &runs] {
            let answer = server.send(server.request("POST", &format!("/predictions/{id}/cancel"))).await;
            assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
        }
        server.kill();
        let server = Server::launch_in(dir.path(), &[], &[]);
        // A worker that is only just being started would share the lock of the folder beyond the end of the server.
        server.until_health(&["READY"]).await;
        for id in [&waits, &runs] {
            assert_eq!(server.ended(id).await["status"], "canceled");
        }
    }
}

/// What `serve` and `doctor` say of a folder.
fn refusals(data: &Path) -> [String; 2] {
    ["serve", "doctor"].map(|command| {
        let mut run = Command::new(tests::binary());
        run.arg(command).args(["--host", "127.0.0.1", "--port", "0", "--worker"]).arg(tests::stand_in());
        let output = run.arg("--data-dir").arg(data).output().unwrap();
        assert!(!output.status.success(), "{command} accepts it");
        let both = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        both.concat()
    })
}

#[tokio::test]
async fn a_damaged_database_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("predictions.sqlite");
    std::fs::write(&database, [0x5a; 5000]).unwrap();
    for said in refusals(dir.path()) {
        for part in [database.to_str().unwrap(), "-wal", "-shm", ".recover"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
    }
}
