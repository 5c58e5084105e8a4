//! How many lives a second a server carries: acceptance, claim and end, each on the disk before it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::store::suite::server::Server;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Prints them, every ten seconds; `HELD=1` holds a snapshot all the time, as a backup does.
#[ignore = "a measurement: see `make bench-fleet`"]
#[test]
fn lives_a_second() {
    let (connections, lives, seconds) = (number("CONNECTIONS", 128), number("LIVES", 128), number("SECONDS", 30));
    let Some(server) = Server::start(&["", "max_connections=1000", "shared_buffers=512MB"]) else { return };
    let url = server.url("postgres");
    let hold = number("HELD", 0) > 0;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let nodes: Vec<_> = (0..(connections / 2).max(1)).map(|_| Arc::new(Postgres::open(&url).unwrap())).collect();
    let held = hold.then(|| {
        let address = Address::parse(&url).unwrap();
        runtime.block_on(async move {
            let client = connect(&address).await.unwrap();
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM syncdiffusion.predictions";
            client.batch_execute(begin).await.unwrap();
            client
        })
    });
    let (ended, next) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    for life in 0..lives {
        let (node, ended, next) = (Arc::clone(&nodes[life % nodes.len()]), Arc::clone(&ended), Arc::clone(&next));
        runtime.spawn(async move {
            while Instant::now() < until {
                let id = next.fetch_add(1, Ordering::Relaxed).to_string();
                let room = Room { free: 8, jobs: 10_000, units: 1e6, claims: u64::MAX };
                node.accept(New::of(record(&id), 1.0), room).await.unwrap();
                for claimed in node.claim(Wants::any(1)).await.unwrap() {
                    let outcome = node.finish(&claimed.claim, succeeded(&claimed), Vec::new()).await.unwrap();
                    assert!(matches!(outcome, Outcome::Ended(_)));
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    for node in &nodes {
        let node = Arc::clone(node);
        runtime.spawn(async move {
            while Instant::now() < until {
                node.beat(&About::default(), Vec::new()).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    let (mut last, mut began) = (0, Instant::now());
    while Instant::now() < until {
        thread::sleep(Duration::from_secs(10).min(until - Instant::now()));
        let all = ended.load(Ordering::Relaxed);
        #[expect(clippy::print_stdout, reason = "it is a measurement")]
        {
            println!("{:.0} lives a second", (all - last) as f64 / began.elapsed().as_secs_f64());
        }
        (last, began) = (all, Instant::now());
    }
    drop(held);
    runtime.shutdown_timeout(Duration::from_secs(5));
}
