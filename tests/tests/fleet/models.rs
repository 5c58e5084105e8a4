//! Servers with different models, and with different dtypes.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Answer, Database, Server};

use super::{LEASE, door, quick, until};

#[tokio::test]
async fn a_server_draws_what_was_accepted_for_its_model() {
    let Some(database) = Database::start() else { return };
    let launch =
        |version: &str| Server::launch_on(&database.url(), &["--lease", LEASE], &[("STAND_IN_VERSION", version)]);
    let mut old = launch("aaaa");
    old.until_health(&["READY"]).await;
    let door = door(&database.url());
    door.until_health(&["READY"]).await;
    assert_eq!(door.predict(&quick("a")).await.json["version"], "aaaa");
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    assert_eq!(door.predict_async(&until("held", &go)).await.status, 202);
    door.until("/predictions/held", |is| is["status"] == "processing").await;
    assert_eq!(door.predict_async(&quick("waits")).await.json["version"], "aaaa");
    let new = launch("bbbb");
    new.until_health(&["READY", "BUSY"]).await;
    // What waits for the old model is not drawn by the new one, and the newest server says what new ones are for.
    let asked = new.predict(&quick("b")).await.json;
    assert_eq!((&asked["version"], &asked["status"]), (&json!("bbbb"), &json!("succeeded")));
    door.until("/v1/models/syncdiffusion/panorama", |is| is["latest_version"]["id"] == "bbbb").await;
    let asked = door.predict(&quick("c")).await.json;
    assert_eq!((&asked["version"], &asked["status"]), (&json!("bbbb"), &json!("succeeded")));
    old.kill();
    assert_eq!(door.get("/predictions/waits").await.json["status"], "starting");
    std::fs::write(&go, "").unwrap();
    let again = launch("aaaa");
    again.until_health(&["READY", "BUSY"]).await;
    let ended = door.ended("waits").await;
    assert_eq!((&ended["version"], &ended["status"]), (&json!("aaaa"), &json!("succeeded")));
}

#[tokio::test]
async fn a_fleet_may_demand_a_dtype() {
    let Some(database) = Database::start() else { return };
    let flags = ["--lease", LEASE, "--fleet-dtype", "f32"];
    let first = Server::launch_on(&database.url(), &flags, &[]);
    first.until_health(&["READY"]).await;
    // Without the flag, too.
    let other = Server::launch_on(&database.url(), &["--lease", LEASE], &[("STAND_IN_DTYPE", "f16")]);
    let health = other.until_health(&["SETUP_FAILED"]).await;
    let logs = health["setup"]["logs"].as_str().unwrap();
    assert!(logs.contains("the worker computes in f16, and this fleet in f32"), "{logs}");
    // What the first one is able to do is known with its next sign of life.
    let ended = loop {
        let answer = other.predict(&quick("a")).await;
        if answer.status != 503 {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ended.json["status"], "succeeded", "the first one draws it: {}", ended.text);
}

/// A request for a scheduler that the model of a server rules out.
async fn without_unipc(server: &Server) -> Answer {
    let mut body = quick("u");
    body["input"]["scheduler"] = json!("unipc");
    server.predict(&body).await
}

fn is_refused(answer: &Answer) {
    assert_eq!(answer.status, 422, "{}", answer.text);
    let detail = &answer.json["detail"][0];
    assert_eq!((&detail["loc"][2], &detail["type"]), (&json!("scheduler"), &json!("value_error")));
    assert!(detail["msg"].as_str().unwrap().contains("must be `ddim`"), "{detail}");
}

#[tokio::test]
async fn a_scheduler_that_the_model_rules_out_is_refused_by_servers_without_workers() {
    let Some(database) = Database::start() else { return };
    let worker = Server::launch_on(&database.url(), &["--lease", LEASE], &[("STAND_IN_WITHOUT_UNIPC", "1")]);
    worker.until_health(&["READY"]).await;
    let first = door(&database.url());
    first.until_health(&["READY"]).await;
    is_refused(&without_unipc(&first).await);
    let mut body = quick("b");
    body["input"]["scheduler"] = json!("dpmpp_2m");
    assert_eq!(first.predict(&body).await.json["status"], "succeeded");
    let said: Value = serde_json::from_str(
        &database.sql("SELECT about -> 'unusable' FROM syncdiffusion.nodes WHERE (about ->> 'ready')::integer > 0"),
    )
    .unwrap();
    assert!(said["unipc"].as_str().unwrap().contains("must be `ddim`"), "{said}");
    // A server of an earlier version does not say it, and is a server all the same.
    let earlier =
        database.sql("SELECT about - 'unusable' FROM syncdiffusion.nodes WHERE (about ->> 'ready')::integer > 0");
    worker.signal("TERM");
    worker.logged("stopped").await;
    drop(first);
    database.sql(&format!(
        "DELETE FROM syncdiffusion.settings WHERE name = 'last_model';
        INSERT INTO syncdiffusion.nodes VALUES (nextval('syncdiffusion.node_numbers'), 1, '{}')",
        earlier.trim()
    ));
    // It does not beat, and is not to be taken for dead.
    let second = Server::launch_on(&database.url(), &["--workers", "0", "--lease", "10m"], &[]);
    second.until_health(&["READY", "BUSY"]).await;
    let mut body = quick("c");
    body["input"]["scheduler"] = json!("unipc");
    assert_eq!(second.predict_async(&body).await.status, 202);
}
