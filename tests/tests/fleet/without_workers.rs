//! No server that could draw: none at all, or none with the model that predictions wait for.

use std::time::Duration;

use serde_json::json;
use tests::{Database, Server};

use super::{LEASE, door, fleet, quick, until, worker};

/// Starts a server without workers that accepts predictions although nobody has one.
fn waiting_room(database: &str, flags: &[&str]) -> Server {
    let all = ["--workers", "0", "--lease", LEASE, "--accept-without-workers"];
    Server::launch_on(database, &[&all[..], flags].concat(), &[])
}

/// Waits until a server's metrics have a line.
async fn until_metrics(server: &Server, line: &str) {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let metrics = server.get("/metrics").await.text;
        if metrics.lines().any(|is| is == line) {
            return;
        }
        let about = metrics.lines().filter(|is| is.starts_with("syncdiffusion_queue")).collect::<Vec<_>>().join("\n");
        assert!(std::time::Instant::now() < end, "`{line}` does not come\n{about}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_fleet_begins_from_nothing_once_it_knows_its_model() {
    let Some(database) = Database::start() else { return };
    let first = waiting_room(&database.url(), &["--queue-size", "2"]);
    // Nobody ever said which model it is.
    assert_eq!(first.get("/health-check").await.json["status"], "STARTING");
    assert_eq!((first.get("/ready").await.status, first.predict(&quick("a")).await.status), (503, 503));
    let gpu = Server::launch_on(&database.url(), &["--lease", LEASE], &[("STAND_IN_WITHOUT_UNIPC", "1")]);
    first.until_health(&["READY"]).await;
    let made = first.predict(&quick("b")).await.json;
    assert_eq!((&made["status"], &made["logs"].as_str().unwrap().contains("no server")), (&json!("succeeded"), &false));
    gpu.signal("TERM");
    gpu.logged("stopped").await;
    // Also where it was never there.
    let second = waiting_room(&database.url(), &["--queue-size", "2"]);
    for server in [&first, &second] {
        let health = server.until_health(&["BUSY"]).await;
        assert_eq!(health["setup"]["status"], "succeeded", "{health}");
        assert_eq!((server.get("/ready").await.status, server.get("/live").await.status), (200, 200));
        until_metrics(server, "syncdiffusion_ready 1").await;
    }
    // Without the flag nothing changes.
    let plain = door(&database.url());
    assert_eq!(plain.get("/health-check").await.json["status"], "STARTING");
    assert_eq!((plain.get("/ready").await.status, plain.predict(&quick("c")).await.status), (503, 503));
    until_metrics(&plain, "syncdiffusion_ready 0").await;

    let mut wrong = quick("wrong");
    wrong["input"]["scheduler"] = json!("unipc");
    assert_eq!(second.predict(&wrong).await.status, 422, "what the model cannot do is known, too");
    let waits = second.predict_async(&quick("one")).await;
    assert_eq!((waits.status, &waits.json["version"]), (202, &made["version"]), "{}", waits.text);
    // The first one may have heard of the server for the last time a second ago.
    assert_eq!(second.predict_async(&quick("two")).await.status, 202);
    let shown = first.get("/predictions/one").await.json;
    assert_eq!((&shown["status"], &shown["metrics"]["queue_position"]), (&json!("starting"), &json!(0)));
    assert!(shown["metrics"].get("seconds_left").is_none(), "nobody knows when a worker comes: {shown}");
    assert!(shown["logs"].as_str().unwrap().contains("no server has a worker now"), "{shown}");
    until_metrics(&first, &format!("syncdiffusion_queue_unserved{{version={}}} 2", made["version"])).await;
    let full = second.predict_async(&quick("three")).await;
    assert_eq!(full.status, 429, "{}", full.text);
    first.logged("predictions wait, and no server has a worker for them").await;

    let gpu = worker(&database.url());
    for id in ["one", "two"] {
        let ended = second.ended(id).await;
        assert_eq!(ended["status"], "succeeded");
        assert!(ended["logs"].as_str().unwrap().contains("no server has a worker now"), "{ended}");
    }
    first.until_health(&["READY"]).await;
    until_metrics(&first, &format!("syncdiffusion_queue_unserved{{version={}}} 0", made["version"])).await;
    drop(gpu);
}

#[tokio::test]
async fn what_nobody_can_draw_any_more_is_told_and_is_in_nobodys_way() {
    let Some(database) = Database::start() else { return };
    let (door, mut old) = fleet(&database, 1).await;
    let door = {
        drop(door);
        let door = Server::launch_on(&database.url(), &["--workers", "0", "--lease", LEASE, "--queue-size", "2"], &[]);
        door.until_health(&["READY"]).await;
        door
    };
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    assert_eq!(door.predict_async(&until("held", &go)).await.status, 202);
    door.until("/predictions/held", |is| is["status"] == "processing").await;
    for id in ["a", "b"] {
        assert_eq!(door.predict_async(&quick(id)).await.status, 202);
    }
    let version = door.get("/predictions/a").await.json["version"].clone();
    old[0].kill();
    let new = Server::launch_on(&database.url(), &["--lease", LEASE], &[("STAND_IN_VERSION", "bbbb")]);
    new.until_health(&["READY", "BUSY"]).await;
    for server in [&door, &new] {
        until_metrics(server, &format!("syncdiffusion_queue_unserved{{version={version}}} 3")).await;
        server.logged("predictions wait for a version of the model that no server has").await;
    }
    // Three wait, and two may.
    assert_eq!(door.predict(&quick("c")).await.json["status"], "succeeded");
    let other = files.path().join("other");
    assert_eq!(door.predict_async(&until("runs", &other)).await.status, 202);
    door.until("/predictions/runs", |is| is["status"] == "processing").await;
    // Now it knows that there is no place.
    door.until_health(&["BUSY"]).await;
    assert_eq!(door.predict_async(&quick("d")).await.status, 202);
    door.until("/predictions/d", |is| is["metrics"]["queue_position"] == 0).await;
    let stranded = door.get("/predictions/b").await.json;
    assert!(stranded["metrics"].get("seconds_left").is_none(), "nobody gets to it: {stranded}");
    assert_eq!(door.predict_async(&quick("e")).await.status, 202);
    assert_eq!(door.predict_async(&quick("f")).await.status, 429, "those that can be drawn count");
    std::fs::write(&other, "").unwrap();
    assert_eq!(door.ended("e").await["status"], "succeeded");
    // As docs/fleet.md finds and cancels them.
    let listed = database.sql(&format!(
        "SELECT id FROM syncdiffusion.predictions WHERE status = 'starting' AND version = '{}'",
        version.as_str().unwrap()
    ));
    let mut ids: Vec<_> = listed.lines().collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "held"]);
    for id in ids {
        assert_eq!(door.json("POST", &format!("/predictions/{id}/cancel"), &[], &json!(null)).await.status, 200);
    }
    until_metrics(&door, &format!("syncdiffusion_queue_unserved{{version={version}}} 0")).await;
}
