//! Answers that take long: those to commits whose standby is away, and those of many bytes.

use std::thread::JoinHandle;

use super::super::lane::{Commit, Taken, Tried};
use super::super::probe;
use super::super::schema::{self, LOCK, STEPS};
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

#[track_caller]
fn until(mut what: impl FnMut() -> bool) {
    let end = Instant::now() + MAX_WAIT;
    while !what() {
        assert!(Instant::now() < end, "it does not come");
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
    let end = Instant::now() + MAX_WAIT;
    loop {
        assert!(Instant::now() < end, "commits do not wait");
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
    // Those of the store, of `waits`, and the one that asks; the canceled one is gone. For each of the two links that
    // are late, another one may be tried.
    let few = "SELECT count(*) <= 8 FROM pg_stat_activity WHERE application_name = 'syncdiffusion'";
    assert!(holds(&url, few), "each try takes a connection");

    wait_for(&url, "");
    waits.join().unwrap();
    until(|| store.trouble().is_none());
    let outcome = answered!(store.finish(&held.claim, succeeded(&held), Vec::new()));
    assert!(matches!(outcome, Outcome::Ended(_)), "{outcome:?}");
    assert_eq!(store.picture("held", Which::FIRST).await.unwrap().unwrap().bytes[..], *b"png");
    assert_eq!(ids(&answered!(store.adopt()).records), ["lost"], "it was stored all the same");
    accept(&*store, record("more")).await;
    until(|| upload(&store, "c").join().unwrap().is_ok());
    assert!(Common::get(&*store, "a").unwrap().is_some());
    assert_eq!(alive(&store).await, me);
}

#[tokio::test]
async fn a_connection_that_stays_late_is_left_for_one_that_is_answered() {
    let Some((a, proxy, b)) = nodes() else { return };
    accept(&a, record("before")).await;
    proxy.freeze();
    let error = a.accept(New::of(record("late"), 1.0), Room::ANY).await.unwrap_err().to_string();
    assert!(error.contains("does not confirm"), "{error}");
    until(|| a.trouble().is_none());
    accept(&a, record("after")).await;
    assert_eq!(ids(&all(&b).await), ["after", "before"]);
}

/// The next write would wait behind the late one, too, on another connection.
#[tokio::test]
async fn while_a_write_waits_for_a_lock_no_other_connection_is_better() {
    const PATIENCE: Duration = Duration::from_secs(2);
    let Some(url) = database().filter(|_| !server::is_pooled()) else { return };
    Postgres::open(&url).unwrap();
    let address = Address::parse(&url).unwrap();
    assert!(until_confirmed(&address, PATIENCE).await);
    let holder = connect(&address).await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE syncdiffusion.predictions").await.unwrap();
    let own = url.clone();
    let waits = thread::spawn(move || execute(&own, "UPDATE syncdiffusion.predictions SET owed = owed"));
    let is_late = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query_start < clock_timestamp() - interval '2 s'";
    until(|| holds(&url, is_late));
    assert!(!probe::is_confirmed(&address, PATIENCE).await);
    holder.batch_execute("ROLLBACK").await.unwrap();
    waits.join().unwrap();
    assert!(until_confirmed(&address, PATIENCE).await);
}

/// Probes on one connection after the other until one is confirmed.
async fn until_confirmed(address: &Address, patience: Duration) -> bool {
    let end = Instant::now() + MAX_WAIT;
    while Instant::now() < end {
        if probe::is_confirmed(address, patience).await {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_claim_does_not_wait_for_a_standby_when_what_came_with_it_fails() {
    let Some(server) = Server::start(&["", "fsync=off"]) else { return };
    let url = server.url("postgres");
    let store = Postgres::open(&url).unwrap();
    accept(&store, record("a")).await;
    let waits = lose_standby(&url);
    gather(&store);
    let fails = store.lane.write(
        (Commit::Quick, Taken::Always),
        0,
        |client| async move { client.batch_execute("SELECT 1 / 0").await },
        |tried: Tried<()>| tried.outcome.map_err(StoreError::from),
    );
    let claims = store.claim(Wants::any(1));
    assert!(fails.await.unwrap_err().to_string().contains("division by zero"));
    assert_eq!(claims.await.unwrap().len(), 1);
    assert!(store.trouble().is_none());
    wait_for(&url, "");
    waits.join().unwrap();
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
    let error = runtime.block_on(async {
        let holder = connect(&address).await.unwrap();
        holder.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})")).await.unwrap();
        let late = connect(&address).await.unwrap();
        schema::bring(&late, STEPS, "100ms").await.unwrap_err().to_string()
    });
    assert!(error.contains("another server has been checking or making the tables for 100ms"), "{error}");
}

/// It locks the tables until its commit is done.
#[tokio::test]
async fn an_upgrade_does_not_wait_for_a_standby() {
    let Some(server) = Server::start(&["", "fsync=off"]) else { return };
    let url = server.url("postgres");
    let address = Address::parse(&url).unwrap();
    schema::bring(&connect(&address).await.unwrap(), &STEPS[..2], schema::MAX_TURN).await.unwrap();
    execute(&url, "ALTER TABLE syncdiffusion.board REPLICA IDENTITY DEFAULT");
    let waits = lose_standby(&url);
    let client = connect(&address).await.unwrap();
    let made = tokio::time::timeout(MAX_WAIT, schema::bring(&client, STEPS, schema::MAX_TURN)).await;
    made.expect("it waits for the standby").unwrap();
    assert!(holds(&url, "SELECT value = '3' FROM syncdiffusion.settings WHERE name = 'version'"));
    wait_for(&url, "");
    waits.join().unwrap();
}
