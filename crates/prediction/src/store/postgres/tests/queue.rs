//! The order of the queue, and how far it has come: what else than calls of nodes could hide what waits.

use super::*;

fn url() -> Option<String> {
    database().filter(|_| !server::is_pooled())
}

/// Has the board brought up to date, as if a second had passed, until something holds.
async fn refresh_until(url: &str, store: &Postgres, holds: &str) {
    let (check, end) = (format!("DO $$ BEGIN ASSERT ({holds}); END $$"), Instant::now() + MAX_WAIT);
    while attempt(url, &check).is_err() {
        assert!(Instant::now() < end, "it does not come: {holds}");
        execute(url, "UPDATE syncdiffusion.board SET at = '-infinity'");
        store.beat(&About::default(), Vec::new()).await.unwrap();
    }
}

async fn accept_of(store: &Postgres, id: &str, tenant: &str, units: f64) {
    let new = New { tenant: tenant.to_owned(), ..New::of(record(id), units) };
    assert!(matches!(store.accept(new, Room::ANY).await.unwrap(), Accepted::New(_)));
}

#[tokio::test]
async fn how_far_the_queue_has_come_outlives_predictions_of_the_same_rank() {
    let Some(url) = url() else { return };
    let store = Postgres::open(&url).unwrap();
    for tenant in ["one", "other"] {
        accept_of(&store, tenant, tenant, 10.0).await;
    }
    for claimed in store.claim(Wants::any(2)).await.unwrap() {
        store.finish(&claimed.claim, succeeded(&claimed), Vec::new()).await.unwrap();
    }
    refresh_until(&url, &store, "SELECT floor = 10 FROM syncdiffusion.board").await;
    // Two nodes remove them, and neither sees what the other does.
    let first = client(&url).await;
    first.batch_execute("BEGIN; SELECT syncdiffusion.remove(ARRAY[1::bigint])").await.unwrap();
    let own = url.clone();
    let second = thread::spawn(move || execute(&own, "SELECT syncdiffusion.remove(ARRAY[2::bigint])"));
    while !second.is_finished() && !is_waiting(&url) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.batch_execute("COMMIT").await.unwrap();
    second.join().unwrap();
    execute(&url, "DO $$ BEGIN ASSERT (SELECT low = 10 FROM syncdiffusion.board); END $$");
    accept_of(&store, "next", "one", 5.0).await;
    assert_eq!(claim(&store).await.record.prediction.id, "next");
    // What is below the floor would not be found, whatever is remembered of the predictions before.
    execute(&url, "UPDATE syncdiffusion.board SET floor = 100, mark = 100");
    accept_of(&store, "last", "one", 5.0).await;
    assert_eq!(claim(&store).await.record.prediction.id, "last");
}

#[tokio::test]
async fn the_queue_goes_on_when_the_clock_of_the_database_is_set_back() {
    let Some(url) = database() else { return };
    let store = Postgres::open(&url).unwrap();
    for id in ["a", "b"] {
        accept(&store, record(id)).await;
    }
    execute(
        &url,
        "UPDATE syncdiffusion.board SET at = clock_timestamp() + interval '1 day', waiting = 2000, units = 2000,
            summed = clock_timestamp() + interval '1 day';
        UPDATE syncdiffusion.predictions SET queued_at = clock_timestamp() + interval '1 day'",
    );
    let room = Room { jobs: 3, ..Room::ANY };
    assert!(matches!(store.accept(New::of(record("c"), 1.0), room).await.unwrap(), Accepted::New(_)));
    let claimed = claim(&store).await;
    assert_eq!(claimed.record.prediction.id, "a");
    store.finish(&claimed.claim, succeeded(&claimed), Vec::new()).await.unwrap();
    let Beat::Alive { board, .. } = store.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    assert_eq!(board.waiting, 2);
    execute(
        &url,
        "DO $$ BEGIN ASSERT (
            SELECT at <= clock_timestamp() AND summed <= clock_timestamp() AND waiting = 2 FROM syncdiffusion.board
        ); ASSERT (SELECT sum(predictions) = 1 FROM syncdiffusion.usage); END $$",
    );
}

/// A restored or replicated database counts its transactions from another number.
#[tokio::test]
async fn the_floor_rises_on_another_server_than_the_one_that_set_its_mark() {
    let Some(url) = database() else { return };
    let store = Postgres::open(&url).unwrap();
    for id in ["a", "b"] {
        accept(&store, record(id)).await;
    }
    execute(&url, "UPDATE syncdiffusion.board SET marked = '9000000000000000000'");
    store.claim(Wants::any(1)).await.unwrap();
    refresh_until(&url, &store, "SELECT floor = 1 FROM syncdiffusion.board").await;
    assert_eq!(claim(&store).await.record.prediction.id, "b");
}

/// A major upgrade by logical replication publishes the schema: nothing may be refused for that.
#[tokio::test]
async fn the_tables_can_be_published() {
    let Some(url) = database() else { return };
    let (a, b) = (Postgres::open(&url).unwrap(), Postgres::open(&url).unwrap());
    execute(&url, "CREATE PUBLICATION upgrade FOR TABLES IN SCHEMA syncdiffusion");
    for id in ["a", "b", "c"] {
        accept(&a, with_webhook(id)).await;
    }
    let claimed = a.claim(Wants::any(2)).await.unwrap();
    let ended = a.finish(&claimed[0].claim, succeeded(&claimed[0]), vec![picture(b"png")]).await.unwrap();
    assert!(matches!(ended, Outcome::Ended(_)));
    assert_eq!(a.give_back(&claimed[1].claim, false, String::new()).await.unwrap(), Outcome::Waits);
    assert!(matches!(a.stop("c").await.unwrap(), Stopped::Ended(_)));
    execute(&url, "UPDATE syncdiffusion.board SET at = '-infinity', summed = '-infinity'");
    let Beat::Alive { nodes, .. } = b.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    execute(&url, "DO $$ BEGIN ASSERT (SELECT sum(predictions) = 2 FROM syncdiffusion.usage); END $$");
    assert_eq!(claim(&a).await.record.prediction.id, "b");
    assert!(b.reap(nodes[0].node, nodes[0].beat).await.unwrap());
    assert_eq!(claim(&b).await.record.prediction.id, "b");
    b.mark_delivered("a", 1).await.unwrap();
    assert!(b.delete("a").await.unwrap());
}
