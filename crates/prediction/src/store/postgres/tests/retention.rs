//! Retention beside the writes of a node.

use super::*;
use crate::store::suite::end;

const NONE: Retention = Retention { count: Some(0), age: None, bytes: None };

#[tokio::test]
async fn writes_do_not_wait_while_it_is_chosen_what_goes() {
    let Some(url) = database() else { return };
    let store = Postgres::open(&url).unwrap();
    end(&store, record("a"), b"png").await;
    let (go, waits) = tokio::sync::oneshot::channel::<()>();
    let first = store.lane.steps(async move {
        _ = waits.await;
        Ok(())
    });
    // Whatever is to be removed waits for its turn among the writes, and there is nothing.
    let looked = tokio::time::timeout(MAX_WAIT, store.sweep(Retention { count: Some(1), ..NONE })).await;
    assert_eq!(looked.expect("it is chosen among the writes").unwrap(), 0);
    let removed = store.sweep(NONE);
    go.send(()).unwrap();
    first.await.unwrap();
    assert_eq!(removed.await.unwrap(), 1);
}

#[tokio::test]
async fn more_than_a_step_removes_goes_at_once() {
    let Some(url) = database() else { return };
    let store = Postgres::open(&url).unwrap();
    end(&store, record("a"), b"png").await;
    execute(
        &url,
        "INSERT INTO syncdiffusion.predictions (seq, id, status, tenant, units, rank, wire, completed_at, record, owed)
            SELECT n, 'n' || n, 'failed', '', 1, 1, 1, 1, '{}', n % 10 = 0 FROM generate_series(10, 2509) n",
    );
    assert_eq!(
        store.sweep(Retention { count: None, age: Some(Duration::from_hours(1)), bytes: None }).await.unwrap(),
        2250
    );
    execute(&url, "UPDATE syncdiffusion.predictions SET owed = false");
    assert_eq!(store.sweep(Retention { count: Some(40), ..NONE }).await.unwrap(), 211);
    execute(&url, "DO $$ BEGIN ASSERT (SELECT count(*) = 40 FROM syncdiffusion.predictions); END $$");
}

#[tokio::test]
async fn retention_rests_after_a_look_that_took_too_long() {
    let Some(url) = database().filter(|_| !server::is_pooled()) else { return };
    let store = Postgres::open(&url).unwrap();
    end(&store, record("a"), b"png").await;
    let (_, name) = url.rsplit_once('/').unwrap();
    let other = client(&url).await;
    // Of connections that are made from now on, as that for long reads is.
    execute(&url, &format!("ALTER DATABASE {name} SET statement_timeout = '300ms'"));
    other.batch_execute("BEGIN; LOCK TABLE syncdiffusion.predictions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // What goes by age is found by an index.
    let by_age = Retention { count: None, age: Some(Duration::ZERO), bytes: None };
    let error = store.sweep(by_age).await.unwrap_err().to_string();
    assert!(error.contains("statement timeout"), "{error}");
    assert!(store.shared.sweep.lock().unwrap().is_none(), "a failure would stop it for long");
    let error = store.sweep(NONE).await.unwrap_err().to_string();
    assert!(error.contains("statement timeout"), "{error}");
    other.batch_execute("ROLLBACK").await.unwrap();
    assert!(store.shared.sweep.lock().unwrap().is_some(), "it would look again at once");
    // Writes have not waited with it.
    accept(&store, record("b")).await;
    assert_eq!(store.sweep(Retention { age: Some(Duration::ZERO), ..NONE }).await.unwrap(), 1);
}
