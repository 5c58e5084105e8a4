//! All servers are replaced, one after the other, while clients ask.

use tests::{Database, Receiver, Server};

use super::LEASE;
use super::load::{Load, all_end};

/// What is running when a worker is to end is given back at once.
const WORKER: &[&str] = &["--lease", LEASE, "--grace", "0"];
const DOOR: &[&str] = &["--workers", "0", "--lease", LEASE];

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_replaced_one_after_the_other_and_nobody_notices() {
    let Some(database) = Database::start() else { return };
    let url = database.url();
    // All start at once: the tables are made once.
    let starts = [WORKER, WORKER, DOOR, DOOR].map(|flags| {
        let url = url.clone();
        std::thread::spawn(move || Server::launch_on(&url, flags, &[]))
    });
    let mut servers = starts.map(|start| start.join().unwrap());
    for server in &servers {
        server.until_health(&["READY", "BUSY"]).await;
    }
    let receiver = Receiver::start(&[]).await;
    let load = Load::start(&[&servers[2], &servers[3]], &receiver);
    for (place, flags) in [WORKER, WORKER, DOOR, DOOR].into_iter().enumerate() {
        load.goes_on(8).await;
        if flags == WORKER {
            // In the middle of something.
            let runs = "SELECT count(*) FROM syncdiffusion.predictions WHERE status = 'processing'";
            database.until(runs, |count| count != "0\n").await;
        }
        servers[place].signal("TERM");
        let status = servers[place].exit().await;
        assert!(status.success(), "{status}\n{}", servers[place].log());
        let new = Server::launch_on(&url, flags, &[]);
        new.until_health(&["READY", "BUSY"]).await;
        if flags == DOOR {
            load.replace(&servers[place], &new);
        }
        servers[place] = new;
    }
    load.goes_on(8).await;
    let ids = load.stop().await;
    let servers: Vec<&Server> = servers.iter().collect();
    all_end(&ids, &servers, &receiver, &database).await;
    let attempts = database.sql("SELECT max(attempts), count(*) FILTER (WHERE owed) FROM syncdiffusion.predictions");
    assert_eq!(attempts, "1|0\n", "an interruption by an upgrade does not count, and no webhook is owed");
    assert_eq!(database.sql("SELECT count(*) FROM syncdiffusion.nodes"), "4\n", "those that left are not waited for");
}
