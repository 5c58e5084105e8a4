//! How many lives a second a server carries: acceptance, claim and end, each on the disk before it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::store::suite::server::Server;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A run of as many seconds is long enough to see whether lives become fewer.
const LONG: usize = 120;
/// Its last quarter has at least this part of the lives of the first.
const MIN_FLAT: f64 = 0.8;

/// Prints them, every ten seconds, or every minute of a long run, which fails if they become fewer. `HELD=1` holds a
/// snapshot all the time, as a backup does.
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
    let whole = Duration::from_secs(seconds as u64);
    let begun = Instant::now();
    let until = begun + whole;
    let mut calls = Vec::new();
    for life in 0..lives {
        let (node, ended, next) = (Arc::clone(&nodes[life % nodes.len()]), Arc::clone(&ended), Arc::clone(&next));
        calls.push(runtime.spawn(async move {
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
        }));
    }
    for node in &nodes {
        let node = Arc::clone(node);
        calls.push(runtime.spawn(async move {
            while Instant::now() < until {
                node.beat(&About::default(), Vec::new()).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }));
    }
    let often = Duration::from_secs(if seconds < LONG { 10 } else { 60 });
    let (mut last, mut since) = (0, begun);
    let mut quarters = Vec::new();
    while Instant::now() < until {
        let quarter = begun + whole * (quarters.len() as u32 + 1) / 4;
        let next = (since + often).min(quarter).min(until);
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let all = ended.load(Ordering::Relaxed);
        if next == quarter {
            quarters.push(all);
        }
        if next == since + often {
            print(&format!("{:.0} lives a second", (all - last) as f64 / since.elapsed().as_secs_f64()));
            (last, since) = (all, Instant::now());
        }
    }
    drop(held);
    for call in calls {
        runtime.block_on(call).unwrap();
    }
    let all = ended.load(Ordering::Relaxed);
    let (first, last) = (quarters[0], all - quarters[2]);
    print(&format!(
        "{:.0} lives a second in all; the last quarter had {:.0} % of the first",
        all as f64 / whole.as_secs_f64(),
        100.0 * last as f64 / first as f64
    ));
    assert!(seconds < LONG || last as f64 >= MIN_FLAT * first as f64, "it becomes slower");
}

#[expect(clippy::print_stdout, reason = "it is a measurement")]
fn print(text: &str) {
    println!("{text}");
}
