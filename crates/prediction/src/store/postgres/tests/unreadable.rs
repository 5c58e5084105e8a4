//! Records that cannot be read.

use super::*;
use crate::store::{Adopted, Claim, StoreError};

/// What a beat says that a node holds.
async fn held(store: &Postgres) -> Vec<Claim> {
    match store.beat(&About::default(), Vec::new()).await.unwrap() {
        Beat::Alive { held, .. } => held,
        Beat::Dead => panic!("it lives"),
    }
}

#[tokio::test]
async fn what_is_claimed_and_cannot_be_read_ends() {
    let Some(url) = database() else { return };
    let store = Postgres::open(&url).unwrap();
    let id = "\u{e000}0 and a zero \0";
    accept(&store, with_webhook(id)).await;
    accept(&store, record("nonsense")).await;
    accept(&store, record("good")).await;
    // As a later program may write it.
    execute(
        &url,
        "UPDATE syncdiffusion.predictions SET record = replace(record, '\"attempts\":0', '\"attempts\":\"none\"')
            WHERE seq = 1;
        UPDATE syncdiffusion.predictions SET record = 'nonsense' WHERE seq = 2",
    );
    let claimed = store.claim(Wants::any(3)).await.unwrap();
    assert_eq!(claimed.iter().map(|one| &*one.record.prediction.id).collect::<Vec<_>>(), ["good"]);
    let ended = store.finish(&claimed[0].claim, succeeded(&claimed[0]), Vec::new()).await.unwrap();
    assert!(matches!(ended, Outcome::Ended(_)));
    // Nobody knows of them, so whoever sees them in a beat gives them back.
    let unknown = held(&store).await;
    assert_eq!(unknown.iter().map(|claim| claim.seq).collect::<Vec<_>>(), [1, 2]);
    for claim in &unknown {
        let back = store.give_back(claim, false, String::new()).await.unwrap();
        let Outcome::Ended(ended) = back else { panic!("{back:?}") };
        assert_eq!(ended.prediction.status, Status::Failed);
    }
    assert!(held(&store).await.is_empty());
    for (id, webhook) in [(id, true), ("nonsense", false)] {
        let stored = store.get(id).await.unwrap().unwrap();
        let prediction = &stored.record.prediction;
        assert_eq!((&*prediction.id, prediction.status), (id, Status::Failed));
        let why = prediction.error.as_deref().unwrap();
        assert!(why.contains("a record that cannot be read: number"), "{why}");
        // What can be read of it is there.
        assert_eq!((stored.owed, stored.record.webhook.is_some()), (webhook, webhook));
        assert_eq!(prediction.input.prompt, if webhook { id } else { "" });
    }
    assert!(store.claim(Wants::any(3)).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_a_dead_node_held_and_cannot_be_read_ends() {
    let Some(url) = database() else { return };
    let (a, b) = (Postgres::open(&url).unwrap(), Postgres::open(&url).unwrap());
    accept(&a, record("a")).await;
    claim(&a).await;
    execute(&url, "UPDATE syncdiffusion.predictions SET record = 'nonsense', stop = true");
    let error = b.get("a").await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    let Beat::Alive { nodes, .. } = b.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    assert!(b.reap(nodes[0].node, nodes[0].beat).await.unwrap());
    assert_eq!(status(&b, "a").await, Status::Canceled);
}

/// A node dies that has accepted `a`, which nobody can read; and the other nodes see that there is nothing for them.
async fn leave_unreadable(url: &str) -> (Postgres, Postgres) {
    let (a, b) = (Postgres::open(url).unwrap(), Postgres::open(url).unwrap());
    let dead = a.join().unwrap();
    accept(&dead, with_webhook("a")).await;
    execute(
        url,
        "UPDATE syncdiffusion.predictions SET record = replace(record, '\"attempts\":0', '\"attempts\":\"none\"')",
    );
    let Beat::Alive { nodes, .. } = a.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    let last = nodes.last().unwrap();
    assert!(a.reap(last.node, last.beat).await.unwrap());
    for node in [&a, &b, &a] {
        let adopted = node.adopt().await.unwrap();
        assert_eq!((adopted.records.len(), adopted.more), (0, false));
    }
    (a, b)
}

/// Its webhook is sent, it goes, and its id is free.
async fn is_looked_after(node: &Postgres, url: &str) {
    let adopted = node.adopt().await.unwrap();
    assert_eq!(ids(&adopted.records), ["a"], "nobody follows it");
    node.mark_delivered("a", adopted.records[0].seq).await.unwrap();
    assert!(node.adopt().await.unwrap().records.is_empty());
    let none = Retention { count: Some(0), age: None, bytes: None };
    assert_eq!(node.sweep(none).await.unwrap(), 1);
    execute(url, "DO $$ BEGIN ASSERT (SELECT count(*) = 0 FROM syncdiffusion.predictions); END $$");
}

#[tokio::test]
async fn what_could_not_be_read_is_adopted_once_it_has_failed() {
    let Some(url) = database() else { return };
    let (a, b) = leave_unreadable(&url).await;
    assert!(b.claim(Wants::any(1)).await.unwrap().is_empty());
    for node in [&a, &b] {
        assert!(node.adopt().await.unwrap().records.is_empty());
    }
    let claims = held(&b).await;
    let back = b.give_back(&claims[0], false, String::new()).await.unwrap();
    let Outcome::Ended(ended) = back else { panic!("{back:?}") };
    assert_eq!((ended.prediction.status, ended.webhook.is_some()), (Status::Failed, true));
    is_looked_after(&a, &url).await;
}

#[tokio::test]
async fn what_could_not_be_read_is_adopted_once_its_node_is_dead() {
    let Some(url) = database() else { return };
    let (a, b) = leave_unreadable(&url).await;
    assert!(b.claim(Wants::any(1)).await.unwrap().is_empty());
    assert!(matches!(a.adopt().await.unwrap(), Adopted { more: false, .. }));
    execute(&url, "UPDATE syncdiffusion.predictions SET stop = true");
    let Beat::Alive { nodes, .. } = a.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    let last = nodes.last().unwrap();
    assert!(a.reap(last.node, last.beat).await.unwrap());
    assert_eq!(status(&a, "a").await, Status::Canceled);
    is_looked_after(&a, &url).await;
}
