//! What waits to be written.

use super::super::lane::{Commit, MAX_WAITING, Taken, Tried};
use super::*;
use crate::store::StoreError;

#[tokio::test]
async fn while_much_waits_only_what_is_new_is_refused() {
    let Some(url) = database() else { return };
    let store = Postgres::open(&url).unwrap();
    for id in ["a", "b"] {
        accept(&store, record(id)).await;
    }
    let held = claim(&store).await;
    let (go, waits) = tokio::sync::oneshot::channel::<()>();
    let first = store.lane.steps(async move {
        _ = waits.await;
        Ok(())
    });
    for _ in 0..MAX_WAITING {
        drop(store.lane.write(
            (Commit::Quick, Taken::Always),
            0,
            |_client| std::future::ready(Ok(())),
            |tried: Tried<()>| tried.outcome.map_err(StoreError::from),
        ));
    }
    let error = store.accept(New::of(record("c"), 1.0), Room::ANY).await.unwrap_err().to_string();
    assert!(error.contains("the database is slower than what it is to store"), "{error}");
    let error = store.add_picture("a", 1, picture(b"small")).await.unwrap_err().to_string();
    assert!(error.contains("the database is slower than what it is to store"), "{error}");
    let (stopped, given_back) = (store.stop("b"), store.give_back(&held.claim, false, String::new()));
    let claimed = store.claim(Wants::any(1));
    go.send(()).unwrap();
    first.await.unwrap();
    assert!(matches!(stopped.await.unwrap(), Stopped::Ended(_)));
    assert_eq!(given_back.await.unwrap(), Outcome::Waits);
    let claimed = claimed.await.unwrap().pop().unwrap();
    assert!(matches!(store.finish(&claimed.claim, succeeded(&claimed), Vec::new()).await.unwrap(), Outcome::Ended(_)));
    accept(&store, record("c")).await;
}
