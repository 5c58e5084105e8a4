//! The synchronous standby stands still, and all commits wait for it.

use std::time::{Duration, Instant};

use tests::{Database, Server};

use super::{fleet, quick, until};

/// What has not come after this time does not come any more.
const MAX_WAIT: Duration = Duration::from_mins(2);
/// How many beats a server makes in two leases, and some more.
const BEATS: u64 = 14;

fn number(database: &Database, sql: &str) -> u64 {
    database.sql(sql).trim().parse().unwrap()
}

/// Waits until the log of one of the servers says something.
async fn one_logged(servers: &[Server], text: &str) {
    let end = Instant::now() + MAX_WAIT;
    while !servers.iter().any(|server| server.log().contains(text)) {
        assert!(Instant::now() < end, "nobody says `{text}`");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_standby_stands_still_nothing_is_lost_and_nobody_is_taken_for_dead() {
    const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncdiffusion'";
    const COMMITS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep' AND query LIKE '%syncdiffusion.accept%'";
    const BEAT: &str = "SELECT min(beat) FROM syncdiffusion.nodes";
    let Some(mut database) = Database::start() else { return };
    database.add_standby();
    let (door, workers) = fleet(&database, 2).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    assert_eq!(door.predict_async(&until("held", &go)).await.status, 202);
    door.until("/predictions/held", |is| is["status"] == "processing").await;
    database.pause_standby();

    let refused = door.predict_async(&quick("late")).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("does not confirm"), "{}", refused.text);
    assert_eq!(number(&database, COMMITS), 1, "it was tried again");
    door.until_health(&["UNHEALTHY"]).await;
    for n in 0..50 {
        assert_eq!(door.predict_async(&quick(&format!("refused-{n}"))).await.status, 503);
    }
    assert_eq!(door.get("/predictions/held").await.json["status"], "processing", "what is stored is shown");
    // It ends while that cannot be stored.
    std::fs::write(&go, "").unwrap();
    one_logged(&workers, "could not be stored").await;
    let beats = number(&database, BEAT) + BEATS;
    database.until(BEAT, |rows| rows.trim().parse::<u64>().unwrap() >= beats).await;
    assert_eq!(number(&database, "SELECT count(*) FROM syncdiffusion.nodes"), 3, "nobody was taken for dead");
    let connections = number(&database, CONNECTIONS);
    // Three of each, and the one on which each may be trying whether commits are confirmed.
    assert!(connections <= 12, "{connections} connections of 3 servers");

    database.resume_standby();
    for server in workers.iter().chain([&door]) {
        server.until_health(&["READY", "BUSY"]).await;
        assert!(!server.log().contains("taken for dead"), "{}", server.log());
    }
    assert_eq!(door.ended("held").await["status"], "succeeded");
    // It was stored although the answer was 503, as the table of failures says.
    assert_eq!(door.ended("late").await["status"], "succeeded");
    assert_eq!(door.predict(&quick("more")).await.json["status"], "succeeded");
    assert_eq!(number(&database, "SELECT max(attempts) FROM syncdiffusion.predictions"), 1);
    assert_eq!(number(&database, "SELECT count(*) FROM syncdiffusion.predictions WHERE id LIKE 'refused%'"), 0);
}
