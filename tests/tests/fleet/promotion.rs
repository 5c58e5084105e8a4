//! The primary dies, and its synchronous standby takes its place.

use serde_json::json;
use tests::{Database, Receiver, Server};

use super::LEASE;
use super::load::{Load, all_end};
use super::refusals::refusal;

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_promoted_has_all_that_was_accepted() {
    let Some(mut database) = Database::start() else { return };
    database.add_standby();
    let url = database.url_of_both();
    let workers = [0; 2].map(|_| Server::launch_on(&url, &["--lease", LEASE], &[]));
    let doors = [0; 2].map(|_| Server::launch_on(&url, &["--workers", "0", "--lease", LEASE], &[]));
    let servers: Vec<&Server> = doors.iter().chain(&workers).collect();
    for server in &servers {
        server.until_health(&["READY", "BUSY"]).await;
        assert!(!server.log().contains("asynchronous"), "{}", server.log());
    }
    // A standby alone is refused, and nothing is changed there.
    let said = refusal(&database.standby_url());
    assert!(said.contains("the server is a standby; name the primary in the URL"), "{said}");

    let receiver = Receiver::start(&[]).await;
    let load = Load::start(&[&doors[0], &doors[1]], &receiver);
    let before = load.goes_on(30).await;
    let seen = doors[0].ended(&before[0]).await;
    database.kill();
    for door in &doors {
        door.until_health(&["UNHEALTHY"]).await;
    }
    let said = refusal(&url);
    assert!(said.contains("database does not allow writes; no host of the URL is a primary"), "{said}");
    let first = json!({"id": "while-away", "input": {"prompt": "a"}});
    assert_eq!(doors[0].predict_async(&first).await.status, 503);
    database.promote();
    for server in &servers {
        server.until_health(&["READY", "BUSY"]).await;
    }
    load.goes_on(20).await;
    let ids = load.stop().await;
    let ends = all_end(&ids, &servers, &receiver, &database).await;
    assert_eq!(ends[0], seen, "what had ended is as it was");
    assert_eq!(database.sql("SELECT pg_is_in_recovery()"), "f\n");
    let nodes = database.sql("SELECT count(*) FROM syncdiffusion.nodes");
    assert_eq!(nodes, "4\n", "nobody was taken for dead: {nodes}");
    // A server that starts later finds it, too.
    let late = Server::launch_on(&url, &["--workers", "0", "--lease", LEASE], &[]);
    assert_eq!(late.ended(&before[0]).await, seen);
}
