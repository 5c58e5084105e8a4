//! Servers with different models, and with different dtypes.

use std::time::Duration;

use serde_json::json;
use tests::{Database, Server};

use super::{LEASE, door, quick};

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
    let new = launch("bbbb");
    new.until_health(&["READY"]).await;
    old.kill();
    // What waits for the old model is not drawn by the new one.
    assert_eq!(door.predict_async(&quick("waits")).await.json["version"], "aaaa");
    let asked = new.predict(&quick("b")).await.json;
    assert_eq!((&asked["version"], &asked["status"]), (&json!("bbbb"), &json!("succeeded")));
    door.until("/v1/models/syncdiffusion/panorama", |is| is["latest_version"]["id"] == "bbbb").await;
    assert_eq!(door.predict(&quick("c")).await.json["version"], "bbbb");
    assert_eq!(door.get("/predictions/waits").await.json["status"], "starting");
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
