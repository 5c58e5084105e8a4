//! What is particular to this engine: lost answers and lost connections.

/// Repeats a call until it is answered.
macro_rules! answered {
    ($call:expr) => {
        loop {
            match $call.await {
                Ok(answer) => break answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
}

mod adopting;
mod bench;
mod hosts;
mod lane;
mod late;
mod models;
mod objects;
mod opening;
mod proxy;
mod queue;
mod retention;
mod rounds;
mod tls;
mod unreadable;
mod upgrade;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::address::Address;
use super::connect::connect;
use super::{Postgres, attempt, execute};
use crate::store::suite::server::{self, database};
use crate::store::suite::{accept, claim, ids, picture, record, status, succeeded, with_webhook};
use crate::store::{
    About, Accepted, Beat, Claimed, Kind, New, Outcome, Picture, Query, Record, Retention, Room, Said, Stopped, Store,
    Wants, Which,
};
use crate::wire::{Metrics, Status};
use proxy::Proxy;

/// What has not come after this time does not come any more.
const MAX_WAIT: Duration = Duration::from_mins(3);

/// A node behind a proxy, and another one that is not; `None` where there is no PostgreSQL, or not directly.
fn nodes() -> Option<(Postgres, Proxy, Postgres)> {
    if server::is_pooled() {
        return None;
    }
    let url = database()?;
    let other = Postgres::open(&url).unwrap();
    let proxy = Proxy::before(&url);
    Some((Postgres::open(&proxy.url).unwrap(), proxy, other))
}

/// A connection beside those of nodes.
async fn client(url: &str) -> Client {
    connect(&Address::parse(url).unwrap()).await.unwrap()
}

/// Whether somebody waits for a lock.
fn is_waiting(url: &str) -> bool {
    let waits = "DO $$ BEGIN ASSERT (SELECT count(*) > 0 FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'); END $$";
    attempt(url, waits).is_ok()
}

async fn until_waiting(url: &str) {
    let end = Instant::now() + MAX_WAIT;
    while !is_waiting(url) {
        assert!(Instant::now() < end, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets the writes that follow go out together.
fn gather(store: &Postgres) {
    drop(store.lane.steps(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(())
    }));
}

async fn all(store: &Postgres) -> Vec<Record> {
    store.list(Query { limit: 1000, ..Query::default() }).await.unwrap()
}

#[tokio::test]
async fn an_acceptance_whose_answer_is_lost_is_found() {
    let Some((a, proxy, b)) = nodes() else { return };
    proxy.lose(1);
    assert_eq!(accept(&a, record("1")).await, 1);
    gather(&a);
    proxy.lose(1);
    let accepted = (2..=9).map(|n| a.accept(New::of(record(&n.to_string()), 1.0), Room::ANY));
    for (n, accepted) in (2..).zip(accepted.collect::<Vec<_>>()) {
        let accepted = accepted.await.unwrap();
        assert!(matches!(accepted, Accepted::New(seq) if seq == n), "{accepted:?}");
    }
    assert_eq!(proxy.lost(), 2);
    assert_eq!(ids(&all(&b).await).concat(), "987654321");
    // One that has replaced another.
    b.stop("9").await.unwrap();
    proxy.lose(1);
    let again = accept(&a, record("9")).await;
    assert_eq!((proxy.lost(), all(&b).await[0].seq), (3, again));
}

/// Its rows change with every beat, and whoever looks for one walks over all that it was since the oldest snapshot.
#[tokio::test]
async fn no_life_needs_the_table_of_the_beats() {
    let Some(url) = database().filter(|_| !server::is_pooled()) else { return };
    let node = Postgres::open(&url).unwrap();
    let other = client(&url).await;
    other.batch_execute("BEGIN; LOCK TABLE syncdiffusion.nodes IN ACCESS EXCLUSIVE MODE").await.unwrap();
    accept(&node, with_webhook("a")).await;
    let first = claim(&node).await;
    node.give_back(&first.claim, false, String::new()).await.unwrap();
    let claimed = claim(&node).await;
    let ended = node.finish(&claimed.claim, succeeded(&claimed), vec![picture(b"png")]).await.unwrap();
    assert!(matches!(ended, Outcome::Ended(_)));
    accept(&node, record("b")).await;
    assert!(matches!(node.stop("b").await.unwrap(), Stopped::Ended(_)));
    assert!(node.get("a").await.unwrap().is_some());
    other.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn an_end_whose_answer_is_lost_is_found() {
    let Some((a, proxy, b)) = nodes() else { return };
    for id in ["a", "b", "c"] {
        accept(&a, record(id)).await;
    }
    let claimed = a.claim(Wants::any(3)).await.unwrap();
    let finish = |n: usize| a.finish(&claimed[n].claim, succeeded(&claimed[n]), vec![picture(b"png")]);
    proxy.lose(1);
    assert!(matches!(finish(0).await.unwrap(), Outcome::Ended(_)));
    assert_eq!(finish(0).await.unwrap(), Outcome::Fenced, "it ends once");
    gather(&a);
    proxy.lose(1);
    let ends = [finish(1), finish(2)];
    for end in ends {
        assert!(matches!(end.await.unwrap(), Outcome::Ended(_)));
    }
    assert_eq!(proxy.lost(), 2);
    assert!(b.get("a").await.unwrap().unwrap().picture.is_some());
    assert_eq!(b.usage().await.unwrap()[0].predictions, 3);
}

#[tokio::test]
async fn what_was_claimed_without_an_answer_is_given_back() {
    let Some((a, proxy, b)) = nodes() else { return };
    accept(&b, record("a")).await;
    accept(&b, record("b")).await;
    let kept = claim(&a).await;
    proxy.lose(1);
    assert!(a.claim(Wants::any(1)).await.is_err());
    assert_eq!(status(&b, "b").await, Status::Processing);
    let again = loop {
        assert!(matches!(a.beat(&About::default(), Vec::new()).await.unwrap(), Beat::Alive { .. }));
        if let Some(claimed) = b.claim(Wants::any(1)).await.unwrap().pop() {
            break claimed;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((again.record.prediction.id.as_str(), again.attempts), ("b", 1));
    assert!(matches!(a.finish(&kept.claim, succeeded(&kept), Vec::new()).await.unwrap(), Outcome::Ended(_)));
}

#[tokio::test]
async fn what_was_adopted_without_an_answer_is_adopted_again() {
    let Some((a, proxy, b)) = nodes() else { return };
    let dead = a.join().unwrap();
    accept(&dead, with_webhook("a")).await;
    let Beat::Alive { nodes, .. } = b.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    let last = nodes.last().unwrap();
    assert!(b.reap(last.node, last.beat).await.unwrap());
    // To the first it says that there is something, to the second what.
    proxy.lose(3);
    assert!(a.adopt().await.is_err());
    assert!(b.adopt().await.unwrap().records.is_empty());
    assert_eq!(ids(&a.adopt().await.unwrap().records), ["a"]);
    assert!(a.adopt().await.unwrap().records.is_empty());
}

#[tokio::test]
async fn no_statement_has_a_name() {
    let Some((a, proxy, _b)) = nodes() else { return };
    for id in ["a", "b", "c"] {
        let input = Picture { which: Which { kind: Kind::Input("image".to_owned()), n: 0 }, ..picture(b"given") };
        a.accept(New { inputs: vec![input], ..New::of(with_webhook(id), 1.0) }, Room::ANY).await.unwrap();
    }
    let claimed: Vec<Claimed> = a.claim(Wants::any(3)).await.unwrap();
    let said = Said { claim: claimed[0].claim, logs: "line\n".to_owned(), metrics: Metrics::default() };
    a.beat(&About::default(), vec![said]).await.unwrap();
    a.news(&[]).await.unwrap();
    a.place(1).await.unwrap();
    let ended = a.finish(&claimed[0].claim, succeeded(&claimed[0]), vec![picture(b"png")]).await.unwrap();
    assert!(matches!(ended, Outcome::Ended(_)));
    let more = Picture { which: Which { kind: Kind::Output, n: 1 }, ..picture(b"more") };
    a.add_picture("a", 1, more).await.unwrap();
    a.get("a").await.unwrap().unwrap();
    a.file("none").await.unwrap();
    a.give_back(&claimed[1].claim, true, String::new()).await.unwrap();
    assert!(matches!(a.stop("b").await.unwrap(), Stopped::Ended(_)));
    a.mark_delivered("b", 2).await.unwrap();
    a.usage().await.unwrap();
    a.search(Query { text: Some("a"), limit: 9, ..Query::default() }).await.unwrap();
    a.adopt().await.unwrap();
    a.reap(9, 9).await.unwrap();
    a.sweep(Retention { count: Some(0), age: Some(Duration::ZERO), bytes: None }).await.unwrap();
    a.delete("a").await.unwrap();
    a.setting("secret", "first".to_owned()).unwrap();
    assert!(!proxy.has_seen_names());
}

/// Every connection to the database is cut again and again.
#[tokio::test]
async fn nothing_is_lost_with_connections() {
    const CUTS: u32 = 25;
    const PREDICTIONS: usize = 60;
    let Some(url) = database().filter(|_| !server::is_pooled()) else { return };
    let first = Postgres::open(&url).unwrap();
    let nodes = [first.join().unwrap(), first.join().unwrap(), first];
    let cuts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&cuts);
    let cutter = thread::spawn(move || {
        while count.fetch_add(1, Ordering::Relaxed) < CUTS {
            execute(
                &url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
            thread::sleep(Duration::from_millis(20));
        }
    });
    let (mut ended, mut accepted) = (HashSet::new(), 0);
    while ended.len() < PREDICTIONS {
        for node in &nodes {
            if accepted < PREDICTIONS {
                let new = || New { idempotent: true, ..New::of(record(&accepted.to_string()), 1.0) };
                answered!(node.accept(new(), Room::ANY));
                accepted += 1;
            }
            let beat = answered!(node.beat(&About::default(), Vec::new()));
            assert!(matches!(beat, Beat::Alive { .. }));
            let Ok(claimed) = node.claim(Wants::any(2)).await else { continue };
            for claimed in claimed {
                let outcome = answered!(node.finish(&claimed.claim, succeeded(&claimed), vec![picture(b"png")]));
                let Outcome::Ended(record) = outcome else { panic!("{outcome:?}") };
                assert!(ended.insert(record.seq), "it ends twice");
            }
        }
    }
    cutter.join().unwrap();
    let records = all(&nodes[0]).await;
    assert_eq!(records.len(), PREDICTIONS);
    assert!(records.iter().all(|record| record.prediction.status == Status::Succeeded && record.attempts == 1));
    assert_eq!(answered!(nodes[0].usage())[0].predictions, PREDICTIONS as u64);
}

/// What is claimed below the floor would never be found.
#[tokio::test]
async fn the_floor_of_the_queue_is_below_all_that_waits() {
    let Some(url) = database() else { return };
    let a = Postgres::open(&url).unwrap();
    let b = a.join().unwrap();
    // As if a second had passed.
    let refresh = async || {
        execute(&url, "UPDATE syncdiffusion.board SET at = '-infinity'");
        b.beat(&About::default(), Vec::new()).await.unwrap();
    };
    for n in 0..6 {
        accept(&a, record(&n.to_string())).await;
    }
    let held = a.claim(Wants::any(4)).await.unwrap();
    // When all transactions on this server have ended that are older.
    let rises = "DO $$ BEGIN ASSERT (SELECT floor = 4 FROM syncdiffusion.board); END $$";
    while attempt(&url, rises).is_err() {
        refresh().await;
    }
    a.give_back(&held[1].claim, false, String::new()).await.unwrap();
    refresh().await;
    assert_eq!(claim(&b).await.record.prediction.id, "1");
    for _ in 0..3 {
        refresh().await;
    }
    let Beat::Alive { nodes, board, .. } = b.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    assert_eq!(board.waiting, 2);
    assert!(b.reap(nodes[0].node, nodes[0].beat).await.unwrap());
    let again = async || claim(&b).await.record.prediction.id.clone();
    assert_eq!([again().await, again().await, again().await], ["0", "2", "3"]);
    assert_eq!([again().await, again().await], ["4", "5"]);
}
