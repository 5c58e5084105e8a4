//! Answers that take long: those to commits whose standby is away, and those of many bytes.

use std::thread::JoinHandle;

use super::*;
use crate::client_files::{ClientFile, Common};
use crate::store::suite::server::Server;
use crate::store::{Node, StoreError};
use crate::time::Time;

/// A commit that locks nothing.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'test', '')";

/// Checks something in the database.
fn holds(url: &str, what: &str) -> bool {
    attempt(url, &format!("DO $$ BEGIN ASSERT ({what}); END $$")).is_ok()
}

fn until(mut what: impl FnMut() -> bool) {
    while !what() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sets which standbys commits wait for.
fn wait_for(url: &str, standbys: &str) {
    execute(url, &format!("ALTER SYSTEM SET synchronous_standby_names = '{standbys}'"));
    execute(url, "SELECT pg_reload_conf()");
}

/// Has commits wait for a standby that is not there. The thread ends when they do not wait any more.
fn lose_standby(url: &str) -> JoinHandle<()> {
    wait_for(url, "nobody");
    loop {
        let own = url.to_owned();
        let waits = thread::spawn(move || execute(&own, COMMIT));
        until(|| {
            waits.is_finished() || holds(url, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        });
        if !waits.is_finished() {
            return waits;
        }
    }
}

async fn alive(store: &Postgres) -> (Node, usize) {
    match store.beat(&About::default(), Vec::new()).await.unwrap() {
        Beat::Alive { node, nodes, .. } => (node, nodes.len()),
        Beat::Dead => panic!("it lives"),
    }
}

fn upload(store: &Arc<Postgres>, id: &str) -> JoinHandle<std::io::Result<bool>> {
    let (store, now) = (Arc::clone(store), Time::now());
    let file = ClientFile {
        id: id.to_owned(),
        owner: String::new(),
        name: String::new(),
        content_type: String::new(),
        size: 4,
        sha256: String::new(),
        metadata: serde_json::Map::new(),
        created_at: now,
        expires_at: now.after(Duration::from_hours(1)),
    };
    thread::spawn(move || store.add(&file, b"file"))
}

#[tokio::test]
async fn a_commit_that_waits_for_a_standby_is_sent_once() {
    let Some(server) = Server::start(&["", "fsync=off"]) else { return };
    let url = server.url("postgres");
    let store = Arc::new(Postgres::open(&url).unwrap());
    accept(&*store, record("held")).await;
    let held = claim(&*store).await;
    let me = alive(&store).await;
    let waits = lose_standby(&url);

    gather(&store);
    let new = store.accept(New::of(record("lost"), 1.0), Room::ANY);
    let end = store.finish(&held.claim, succeeded(&held), vec![picture(b"png")]);
    let file = upload(&store, "a");
    until(|| holds(&url, "SELECT count(*) > 2 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"));
    // Who cancels it makes it seen, and nobody has it but this server.
    execute(
        &url,
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%COMMIT%'",
    );
    let error = new.await.unwrap_err().to_string();
    assert!(error.contains("does not confirm"), "{error}");
    assert!(end.await.is_err());
    assert!(file.join().unwrap().unwrap_err().to_string().contains("does not confirm"));
    assert!(store.trouble().unwrap().contains("does not confirm"));
    for n in 0..40 {
        let refused = store.accept(New::of(record(&n.to_string()), 1.0), Room::ANY).await;
        assert!(matches!(refused, Err(StoreError::Engine(_))), "{refused:?}");
        assert!(store.claim(Wants::any(1)).await.is_err());
        assert!(
            store.finish(&held.claim, succeeded(&held), Vec::new()).await.is_err(),
            "nobody has it but this server"
        );
        assert!(upload(&store, "b").join().unwrap().is_err());
        assert_eq!(alive(&store).await, me, "beats do not wait");
        assert!(Store::get(&*store, "held").await.unwrap().is_some());
    }
    // Those of the store, of `waits`, and the one that asks; the canceled one is gone.
    let few = "SELECT count(*) <= 6 FROM pg_stat_activity WHERE application_name = 'syncdiffusion'";
    assert!(holds(&url, few), "each try takes a connection");

    wait_for(&url, "");
    waits.join().unwrap();
    until(|| store.trouble().is_none());
    let outcome = answered!(store.finish(&held.claim, succeeded(&held), Vec::new()));
    assert!(matches!(outcome, Outcome::Ended(_)), "{outcome:?}");
    assert_eq!(store.picture("held", Which::FIRST).await.unwrap().unwrap().bytes[..], *b"png");
    assert_eq!(ids(&answered!(store.adopt())), ["lost"], "it was stored all the same");
    accept(&*store, record("more")).await;
    until(|| upload(&store, "c").join().unwrap().is_ok());
    assert!(Common::get(&*store, "a").unwrap().is_some());
    assert_eq!(alive(&store).await, me);
}

#[tokio::test]
async fn a_picture_takes_as_long_as_its_line_needs() {
    let Some((a, proxy, b)) = nodes() else { return };
    accept(&b, record("a")).await;
    let claimed = claim(&b).await;
    let bytes: Vec<u8> = (0..14 << 20).map(|n: u32| (n % 251) as u8).collect();
    b.finish(&claimed.claim, succeeded(&claimed), vec![picture(&bytes)]).await.unwrap();
    alive(&a).await;
    proxy.slow_down();
    let mut reading = a.picture("a", Which::FIRST);
    let read = loop {
        tokio::select! {
            read = &mut reading => break read,
            () = tokio::time::sleep(Duration::from_millis(200)) => drop(alive(&a).await),
        }
    };
    assert!(read.unwrap().unwrap().bytes[..] == bytes[..]);
}

#[test]
fn a_start_does_not_wait_for_ever() {
    let Some(url) = database().filter(|_| !server::is_pooled()) else { return };
    Postgres::open(&url).unwrap();
    let address = Address::parse(&url).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // As a server that is stopped while it makes the tables.
    let holder = runtime.block_on(async {
        let client = connect(&address).await.unwrap();
        client
            .batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({})", super::super::schema::LOCK))
            .await
            .unwrap();
        client
    });
    let error = Postgres::open(&url).err().unwrap().to_string();
    assert!(error.contains("another server has been checking or making the tables for 20s"), "{error}");
    drop(holder);
}
