//! Nodes that die, and what becomes of what they held.

use super::*;
use crate::store::{About, Awaited, Beat, Claim, News, Node, Peer, Said};
use crate::wire::Metrics;

super::cases!(
    of several:
    what_a_dead_node_held_is_claimed_again,
    a_dead_node_claims_nothing,
    what_nobody_looks_after_is_adopted,
    news_of_others_work
);

async fn beat(store: &dyn Store) -> Option<(Vec<Claim>, Vec<Peer>)> {
    match store.beat(&About::default(), Vec::new()).await.unwrap() {
        Beat::Alive { held, nodes, .. } => Some((held, nodes)),
        Beat::Dead => None,
    }
}

/// The first node, as `store` sees it.
async fn first(store: &dyn Store) -> (Node, u64) {
    let (_, peers) = beat(store).await.unwrap();
    (peers[0].node, peers[0].beat)
}

async fn what_a_dead_node_held_is_claimed_again(nodes: &Nodes) {
    let (a, b, c) = (&*nodes.a, &*nodes.b, &*nodes.c);
    for id in ["a", "b", "stopped"] {
        accept(b, with_webhook(id)).await;
    }
    let held = a.claim(Wants::any(9)).await.unwrap();
    assert_eq!(beat(a).await.unwrap().0, held.iter().map(|claimed| claimed.claim).collect::<Vec<_>>());
    b.stop("stopped").await.unwrap();
    let (node, stands) = first(b).await;
    assert!(!b.reap(node, stands - 1).await.unwrap(), "it has moved since");
    assert!(b.reap(node, stands).await.unwrap());
    assert!(!c.reap(node, stands).await.unwrap(), "one reaper wins");
    assert_eq!(status(c, "stopped").await, Status::Canceled);
    assert_eq!(a.finish(&held[0].claim, succeeded(&held[0]), Vec::new()).await.unwrap(), Outcome::Fenced);

    let again = claim(b).await;
    assert_eq!((again.record.prediction.id.as_str(), again.attempts), ("a", 2));
    // A second time, and it has failed.
    let (_, peers) = beat(c).await.unwrap();
    assert!(c.reap(peers[0].node, peers[0].beat).await.unwrap());
    let failed = c.get("a").await.unwrap().unwrap();
    assert_eq!(
        failed.record.prediction.error.as_deref().unwrap(),
        "it was interrupted 2 times by the end of the server or its worker"
    );
    assert!(failed.owed && failed.record.prediction.completed_at.is_some());
    assert_eq!(claim(c).await.record.prediction.id, "b");
}

async fn a_dead_node_claims_nothing(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    accept(b, record("a")).await;
    let (node, stands) = first(b).await;
    assert!(b.reap(node, stands).await.unwrap());
    assert!(a.claim(Wants::any(1)).await.unwrap().is_empty(), "nobody would reap it again");
    assert!(beat(a).await.is_none(), "it learns that it was taken for dead");
    assert!(a.claim(Wants::any(1)).await.unwrap().is_empty(), "and gets nothing while it drops what it holds");
    assert!(beat(a).await.unwrap().0.is_empty(), "and goes on as a new node");
    let claimed = claim(a).await;
    assert!(matches!(a.finish(&claimed.claim, succeeded(&claimed), Vec::new()).await.unwrap(), Outcome::Ended(_)));
}

async fn what_nobody_looks_after_is_adopted(nodes: &Nodes) {
    let (a, b, c) = (&*nodes.a, &*nodes.b, &*nodes.c);
    let owes = end(a, with_webhook("owes"), b"png").await;
    accept(a, record("waits")).await;
    accept(c, record("another's")).await;
    assert!(b.adopt().await.unwrap().records.is_empty(), "their node lives");
    let (node, stands) = first(b).await;
    b.reap(node, stands).await.unwrap();
    let mut adopted = b.adopt().await.unwrap().records;
    adopted.sort_by_key(|record| record.seq);
    assert_eq!(ids(&adopted), ["owes", "waits"]);
    assert!(c.adopt().await.unwrap().records.is_empty(), "by one node only");
    b.mark_delivered("owes", owes.seq).await.unwrap();
    assert!(!c.get("owes").await.unwrap().unwrap().owed);
}

async fn news_of_others_work(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let seq = accept(a, record("a")).await;
    let awaited = |read| vec![Awaited { id: "a".to_owned(), seq, read }];
    assert_eq!(a.news(&awaited(0)).await.unwrap(), [News::Waits { seq, attempts: 0 }]);
    let claimed = claim(b).await;
    let metrics = Metrics { progress: Some(0.5), ..Metrics::default() };
    for line in ["one\n", "two\n"] {
        let said = Said { claim: claimed.claim, logs: line.to_owned(), metrics: metrics.clone() };
        b.beat(&About::default(), vec![said]).await.unwrap();
    }
    let runs = |logs: &str| News::Runs {
        seq,
        attempts: 1,
        started_at: claimed.started_at,
        logs: logs.to_owned(),
        metrics: Box::new(metrics.clone()),
    };
    assert_eq!(a.news(&awaited(0)).await.unwrap(), [runs("one\ntwo\n")]);
    assert_eq!(a.news(&awaited(4)).await.unwrap(), [runs("two\n")]);
    assert!(b.news(&[]).await.unwrap().is_empty());
    a.stop("a").await.unwrap();
    assert_eq!(b.news(&[]).await.unwrap(), [News::Stop(claimed.claim)]);
    let Outcome::Ended(end) = b.finish(&claimed.claim, succeeded(&claimed), Vec::new()).await.unwrap() else {
        panic!("the claim holds")
    };
    let news = a.news(&awaited(8)).await.unwrap();
    let [News::Ended(told)] = &news[..] else { panic!("{news:?}") };
    assert_eq!((told.seq, told.prediction.status), (end.seq, Status::Canceled));
    a.delete("a").await.unwrap();
    assert_eq!(a.news(&awaited(8)).await.unwrap(), [News::Gone { seq }]);
}
