//! Servers that die, freeze or are cut off, and a database that dies.

use std::path::Path;

use serde_json::{Value, json};
use tests::{Database, Receiver, Server};

use super::proxy::Proxy;
use super::{LEASE, fleet, quick, until, worker};

/// A prediction that goes on when a file is there, and whose end is told to a receiver.
fn held(receiver: &Receiver, go: &Path) -> Value {
    let mut body = until("held", go);
    body["webhook"] = json!(format!("{}/held", receiver.url));
    body["webhook_events_filter"] = json!(["completed"]);
    body
}

/// Waits until another server runs what a lost one held.
async fn runs_again(door: &Server, database: &Database, id: &str) {
    door.until(&format!("/predictions/{id}"), |_| {
        database.sql(&format!("SELECT attempts, status FROM syncdiffusion.predictions WHERE id = '{id}'"))
            == "2|processing\n"
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_server_held_runs_again_and_its_webhooks_arrive() {
    let Some(database) = Database::start() else { return };
    let (door, mut workers) = fleet(&database, 1).await;
    let receiver = Receiver::start(&[]).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    // Accepted and held by the server that will be killed.
    let body = held(&receiver, &go);
    assert_eq!(workers[0].predict_async(&body).await.status, 202);
    door.until("/predictions/held", |is| is["status"] == "processing").await;
    workers[0].kill();
    let other = worker(&database.url());
    other.until_health(&["READY", "BUSY"]).await;
    runs_again(&door, &database, "held").await;
    std::fs::write(&go, "").unwrap();
    assert_eq!(door.ended("held").await["status"], "succeeded");
    receiver.wait(|sent| !sent.is_empty()).await;
}

#[tokio::test]
async fn the_result_of_a_frozen_server_is_refused() {
    let Some(database) = Database::start() else { return };
    let (door, workers) = fleet(&database, 1).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    assert_eq!(door.predict_async(&until("held", &go)).await.status, 202);
    door.until("/predictions/held", |is| is["status"] == "processing").await;
    workers[0].signal("STOP");
    let other = worker(&database.url());
    other.until_health(&["READY", "BUSY"]).await;
    runs_again(&door, &database, "held").await;
    std::fs::write(&go, "").unwrap();
    let ended = door.ended("held").await;
    assert_eq!(ended["status"], "succeeded");
    workers[0].signal("CONT");
    workers[0].logged("taken for dead").await;
    workers[0].until_health(&["READY"]).await;
    assert_eq!(door.get("/predictions/held").await.json, ended, "an end does not change");
    assert_eq!(workers[0].ended("held").await, ended);
    let more = workers[0].predict(&json!({"input": {"prompt": "a", "width": 512}})).await;
    assert_eq!(more.json["status"], "succeeded", "it goes on as a new one: {}", more.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_cut_off_comes_back() {
    let Some(database) = Database::start() else { return };
    let proxy = Proxy::start(&database).await;
    let (door, _workers) = fleet(&database, 1).await;
    let cut = Server::launch_on(&proxy.url(), &["--workers", "0", "--lease", LEASE], &[]);
    cut.until_health(&["READY"]).await;
    proxy.cut();
    cut.until_health(&["UNHEALTHY"]).await;
    assert_eq!(cut.predict_async(&json!({"input": {"prompt": "a"}})).await.status, 503);
    let beside = door.predict(&json!({"input": {"prompt": "a", "width": 512}})).await;
    assert_eq!(beside.json["status"], "succeeded", "the others go on");
    proxy.pass();
    cut.until_health(&["READY"]).await;
    let back = cut.predict(&json!({"input": {"prompt": "a", "width": 512}})).await;
    assert_eq!(back.json["status"], "succeeded", "{}", back.text);
}

#[tokio::test]
async fn a_killed_database_loses_nothing() {
    let Some(mut database) = Database::start() else { return };
    let (door, workers) = fleet(&database, 1).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    assert_eq!(door.predict_async(&until("runs", &go)).await.status, 202);
    door.until("/predictions/runs", |is| is["status"] == "processing").await;
    let waits = json!({"id": "waits", "input": {"prompt": "a", "width": 512}});
    assert_eq!(door.predict_async(&waits).await.status, 202);
    database.kill();
    door.until_health(&["UNHEALTHY"]).await;
    assert_eq!(door.predict_async(&json!({"input": {"prompt": "b"}})).await.status, 503);
    // It ends while nobody can store that.
    std::fs::write(&go, "").unwrap();
    workers[0].logged("could not be stored").await;
    database.restart();
    assert_eq!(door.ended("runs").await["status"], "succeeded");
    assert_eq!(door.ended("waits").await["status"], "succeeded");
    let attempts = database.sql("SELECT max(attempts) FROM syncdiffusion.predictions");
    assert_eq!(attempts, "1\n", "nobody was taken for dead");
    drop(door);
    let again = super::door(&database.url());
    assert_eq!(again.ended("runs").await["status"], "succeeded");
}

#[tokio::test]
async fn a_server_that_leaves_gives_back_what_it_holds_and_hands_on_its_webhooks() {
    let Some(database) = Database::start() else { return };
    let leaving = Server::launch_on(&database.url(), &["--lease", LEASE, "--grace", "0"], &[]);
    leaving.until_health(&["READY"]).await;
    let (door, _) = fleet(&database, 0).await;
    let receiver = Receiver::start(&[]).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    let body = held(&receiver, &go);
    assert_eq!(leaving.predict_async(&body).await.status, 202);
    door.until("/predictions/held", |is| is["status"] == "processing").await;
    leaving.signal("TERM");
    let node = "SELECT coalesce(keeper::text, 'none') || status FROM syncdiffusion.predictions";
    leaving.logged("stopped").await;
    door.until("/predictions/held", |is| is["status"] == "starting").await;
    std::fs::write(&go, "").unwrap();
    let other = worker(&database.url());
    other.until_health(&["READY", "BUSY"]).await;
    assert_eq!(door.ended("held").await["status"], "succeeded");
    receiver.wait(|sent| !sent.is_empty()).await;
    let attempts = database.sql("SELECT attempts FROM syncdiffusion.predictions");
    assert_eq!(attempts, "1\n", "the one that left does not count: {}", database.sql(node));
}

/// The last server that is left looks after what the others accepted, although nobody comes after them.
async fn the_last_one_sends_the_webhook(database: &Database, door: &mut Server, last: &Server, go: &Path, dies: bool) {
    let receiver = Receiver::start(&[]).await;
    assert_eq!(door.predict_async(&held(&receiver, go)).await.status, 202);
    last.until("/predictions/held", |is| is["status"] == "processing").await;
    if dies {
        door.kill();
        last.logged("a server is dead").await;
    } else {
        door.signal("TERM");
        door.exit().await;
    }
    database.until("SELECT count(*) FROM syncdiffusion.nodes", |rows| rows == "1\n").await;
    std::fs::write(go, "").unwrap();
    assert_eq!(last.ended("held").await["status"], "succeeded");
    receiver.wait(|sent| !sent.is_empty()).await;
    database.until("SELECT count(*) FROM syncdiffusion.predictions WHERE owed", |rows| rows == "0\n").await;
    assert_eq!(receiver.sent().len(), 1);
}

#[tokio::test]
async fn the_last_server_takes_over_from_one_that_leaves() {
    let Some(database) = Database::start() else { return };
    let (mut door, workers) = fleet(&database, 1).await;
    let files = tempfile::tempdir().unwrap();
    the_last_one_sends_the_webhook(&database, &mut door, &workers[0], &files.path().join("go"), false).await;
}

#[tokio::test]
async fn the_last_server_takes_over_from_one_that_dies() {
    let Some(database) = Database::start() else { return };
    let (mut door, workers) = fleet(&database, 1).await;
    let files = tempfile::tempdir().unwrap();
    the_last_one_sends_the_webhook(&database, &mut door, &workers[0], &files.path().join("go"), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_worker_loses_what_it_holds_and_others_end_it() {
    let Some(database) = Database::start() else { return };
    let proxy = Proxy::start(&database).await;
    let (door, mut workers) = fleet(&database, 1).await;
    workers[0].kill();
    let cut = Server::launch_on(&proxy.url(), &["--lease", LEASE], &[]);
    cut.until_health(&["READY"]).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    assert_eq!(door.predict_async(&until("held", &go)).await.status, 202);
    door.until("/predictions/held", |is| is["status"] == "processing").await;
    proxy.cut();
    let other = worker(&database.url());
    other.until_health(&["READY", "BUSY"]).await;
    runs_again(&door, &database, "held").await;
    std::fs::write(&go, "").unwrap();
    let ended = door.ended("held").await;
    assert_eq!(ended["status"], "succeeded");
    proxy.pass();
    cut.logged("taken for dead").await;
    cut.until_health(&["READY"]).await;
    assert_eq!(cut.ended("held").await, ended, "an end does not change");
    let more = cut.predict(&quick("more")).await;
    assert_eq!(more.json["status"], "succeeded", "{}", more.text);
}

#[tokio::test]
async fn a_cancel_that_was_answered_counts_although_its_server_dies() {
    let Some(database) = Database::start() else { return };
    let (door, mut workers) = fleet(&database, 1).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    assert_eq!(door.predict_async(&until("held", &go)).await.status, 202);
    door.until("/predictions/held", |is| is["status"] == "processing").await;
    workers[0].signal("STOP");
    assert_eq!(door.json("POST", "/predictions/held/cancel", &[], &json!(null)).await.status, 200);
    workers[0].kill();
    assert_eq!(door.ended("held").await["status"], "canceled");
}

#[tokio::test]
async fn a_webhook_that_is_delivered_while_the_database_is_away_is_marked_later() {
    let Some(mut database) = Database::start() else { return };
    let (door, _workers) = fleet(&database, 1).await;
    let receiver = Receiver::start(&[500, 500, 500]).await;
    let mut body = quick("a");
    body["webhook"] = json!(format!("{}/a", receiver.url));
    body["webhook_events_filter"] = json!(["completed"]);
    assert_eq!(door.predict_async(&body).await.status, 202);
    receiver.wait(|sent| !sent.is_empty()).await;
    database.kill();
    receiver.wait(|sent| sent.len() == 4).await;
    database.restart();
    let owed = "SELECT count(*) FROM syncdiffusion.predictions WHERE owed";
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while database.sql(owed) != "0\n" {
        assert!(std::time::Instant::now() < end, "it stays owed\n{}", door.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(receiver.sent().len(), 4, "it is not sent again");
}
