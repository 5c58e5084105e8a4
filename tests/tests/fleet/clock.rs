//! A server whose clock is hours off: only the times that it writes are wrong.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::{Database, Receiver, Server};

use super::{LEASE, door, quick, until, worker};

const HOURS: i64 = 5;

/// What makes a server's clock wrong: a library that is preloaded into it.
fn wrong_clock(dir: &Path) -> String {
    let library = dir.join("wrong_clock.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library);
    compiler.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wrong_clock.c")).arg("-ldl");
    assert!(compiler.status().expect("a C compiler").success());
    library.display().to_string()
}

/// How many hours a time of the wire is from now, rounded.
fn hours_off(database: &Database, time: &Value) -> i64 {
    let sql = format!("SELECT round(extract(epoch FROM '{}'::timestamptz - now()) / 3600)", time.as_str().unwrap());
    database.sql(&sql).trim().parse().unwrap()
}

#[tokio::test]
async fn a_wrong_clock_costs_no_lease_and_no_order() {
    let Some(database) = Database::start() else { return };
    let (url, files, receiver) = (database.url(), tempfile::tempdir().unwrap(), Receiver::start(&[]).await);
    let library = wrong_clock(files.path());
    let launch = |hours: i64, flags: &[&str]| {
        let shift = (hours * 3600).to_string();
        Server::launch_on(&url, flags, &[("LD_PRELOAD", &library), ("CLOCK_SHIFT", &shift)])
    };
    let behind = launch(-HOURS, &["--lease", LEASE]);
    behind.until_health(&["READY"]).await;
    let ahead = launch(HOURS, &["--workers", "0", "--lease", LEASE]);
    let right = door(&url);
    for server in [&ahead, &right] {
        server.until_health(&["READY"]).await;
    }
    let go = files.path().join("go");
    let mut held = until("held", &go);
    held["webhook"] = json!(format!("{}/held", receiver.url));
    held["webhook_events_filter"] = json!(["completed"]);
    assert_eq!(ahead.predict_async(&held).await.status, 202);
    let shown = right.until("/predictions/held", |is| is["status"] == "processing").await;
    assert_eq!(hours_off(&database, &shown["created_at"]), HOURS, "the clocks are wrong");
    assert_eq!(hours_off(&database, &shown["started_at"]), -HOURS);

    // They wait in the order in which they came, whoever was asked.
    for (server, id) in [(&right, "a"), (&ahead, "b"), (&behind, "c"), (&right, "d")] {
        assert_eq!(server.predict_async(&quick(id)).await.status, 202);
    }
    for server in [&right, &ahead, &behind] {
        for (at, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let metrics = server.get(&format!("/predictions/{id}")).await.json["metrics"].clone();
            assert_eq!(metrics["queue_position"], at, "{id}: {metrics}");
            assert!(metrics["seconds_left"].as_f64().is_none_or(|left| (0.0..3600.0).contains(&left)), "{metrics}");
        }
    }

    // Longer than the lease, by beats.
    let beats = "SELECT min(beat) FROM syncdiffusion.nodes";
    let enough: u64 = database.sql(beats).trim().parse::<u64>().unwrap() + 10;
    database.until(beats, |beat| beat.trim().parse::<u64>().is_ok_and(|beat| beat >= enough)).await;
    let now = "SELECT status, attempts, (SELECT count(*) FROM syncdiffusion.nodes) FROM syncdiffusion.predictions";
    assert_eq!(database.sql(&format!("{now} WHERE id = 'held'")), "processing|1|3\n");
    std::fs::write(&go, "").unwrap();
    let mut last = Value::Null;
    for id in ["held", "a", "b", "c", "d"] {
        let ended = ahead.ended(id).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        let took = ended["metrics"]["predict_time"].as_f64().unwrap();
        assert!((0.0..600.0).contains(&took), "by one clock: {ended}");
        // All were ended by the same clock.
        assert!(last.as_str() < ended["completed_at"].as_str(), "{id} ended before {last}");
        last = ended["completed_at"].clone();
    }
    let sent = receiver.wait(|sent| !sent.is_empty()).await;
    assert_eq!(sent[0].json["status"], "succeeded");
    assert_eq!(database.sql("SELECT max(attempts) FROM syncdiffusion.predictions"), "1\n");
    for server in [&ahead, &behind, &right] {
        assert!(!server.log().contains("taken for dead") && !server.log().contains("is dead"), "{}", server.log());
    }
}

#[tokio::test]
async fn a_wrong_clock_removes_nothing_before_its_time() {
    let Some(database) = Database::start() else { return };
    let (url, files) = (database.url(), tempfile::tempdir().unwrap());
    let worker = worker(&url);
    worker.until_health(&["READY"]).await;
    for id in ["old", "new"] {
        assert_eq!(worker.predict(&quick(id)).await.json["status"], "succeeded");
    }
    let two_hours = 2 * 3_600_000_000_i64;
    database.sql(&format!(
        "UPDATE syncdiffusion.predictions SET completed_at = completed_at - {two_hours} WHERE id = 'old'"
    ));
    let library = wrong_clock(files.path());
    let shift = (30 * 24 * 3600).to_string();
    // It sweeps when it starts.
    let ahead = Server::launch_on(
        &url,
        &["--workers", "0", "--lease", LEASE, "--keep", "1h"],
        &[("LD_PRELOAD", &library), ("CLOCK_SHIFT", &shift)],
    );
    ahead.until_status("/predictions/old", 404).await;
    assert_eq!(ahead.get("/predictions/new").await.status, 200);
}
