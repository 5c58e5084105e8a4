//! Several servers on one database, seen from outside, with the stand-in worker.

mod answers;
mod clock;
mod failures;
mod full;
mod kills;
mod load;
mod models;
mod pictures;
mod promotion;
mod proxy;
mod refusals;
mod rolling;
mod shared;
mod standby;
mod without_workers;

use serde_json::{Value, json};
use tests::{Database, Server};

/// How long a server may be silent in these tests.
const LEASE: &str = "3s";

/// Starts a server without workers.
fn door(database: &str) -> Server {
    Server::launch_on(database, &["--workers", "0", "--lease", LEASE], &[])
}

/// Starts a server with a worker.
fn worker(database: &str) -> Server {
    Server::launch_on(database, &["--lease", LEASE], &[])
}

/// A server without workers and some with one, all ready.
async fn fleet(database: &Database, workers: usize) -> (Server, Vec<Server>) {
    let workers: Vec<_> = (0..workers).map(|_| worker(&database.url())).collect();
    for server in &workers {
        server.until_health(&["READY"]).await;
    }
    let door = door(&database.url());
    door.until_health(&["READY"]).await;
    (door, workers)
}

/// A prediction that ends soon.
fn quick(id: &str) -> Value {
    json!({"id": id, "input": {"prompt": "a", "width": 512}})
}

/// A prediction that runs until a file exists.
fn until(id: &str, file: &std::path::Path) -> Value {
    json!({"id": id, "input": {"prompt": format!("until={}", file.display()), "width": 512}})
}
