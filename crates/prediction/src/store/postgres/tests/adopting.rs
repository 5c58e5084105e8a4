//! What nobody looks after, when it is more than is taken at a time, or somebody else has it.

use super::*;
use crate::store::Adopted;
use crate::store::postgres::nodes::MAX_ORPHANS;

/// Takes the newest node for dead.
async fn bury_the_newest(by: &Postgres) {
    let Beat::Alive { nodes, .. } = by.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    let newest = nodes.last().unwrap();
    assert!(by.reap(newest.node, newest.beat).await.unwrap());
}

/// Has a node of the same store accept `count` predictions and die.
async fn leave(node: &Postgres, by: &Postgres, count: usize) {
    let leaving = node.join().unwrap();
    let accepted: Vec<_> =
        (0..count).map(|n| leaving.accept(New::of(with_webhook(&n.to_string()), 1.0), Room::ANY)).collect();
    for accepted in accepted {
        assert!(matches!(accepted.await.unwrap(), Accepted::New(_)));
    }
    bury_the_newest(by).await;
}

/// Adopts until there is no more; how many, and in how many parts.
async fn adopt_all(node: &Postgres) -> (usize, usize) {
    let (mut adopted, mut parts) = (HashSet::new(), 0);
    loop {
        let Adopted { records, more } = node.adopt().await.unwrap();
        parts += 1;
        for record in records {
            assert!(adopted.insert(record.seq), "twice");
        }
        if !more {
            return (adopted.len(), parts);
        }
    }
}

#[tokio::test]
async fn more_than_is_taken_at_a_time_is_adopted_in_parts() {
    let Some(url) = database() else { return };
    let node = Postgres::open(&url).unwrap();
    leave(&node, &node, 2 * MAX_ORPHANS + 1).await;
    assert_eq!(adopt_all(&node).await, (2 * MAX_ORPHANS + 1, 3));
    assert_eq!(adopt_all(&node).await, (0, 1));
}

#[tokio::test]
async fn a_whole_part_that_was_adopted_without_an_answer_is_told_once() {
    let Some((a, proxy, b)) = nodes() else { return };
    leave(&a, &b, MAX_ORPHANS + 1).await;
    // To the first it says that there is something, to the second what.
    proxy.lose(3);
    assert!(a.adopt().await.is_err());
    assert_eq!(adopt_all(&a).await, (MAX_ORPHANS + 1, 2));
    assert_eq!(adopt_all(&a).await, (0, 1));
}

#[tokio::test]
async fn what_somebody_else_has_locked_is_adopted_later() {
    let Some(url) = database().filter(|_| !server::is_pooled()) else { return };
    let node = Postgres::open(&url).unwrap();
    leave(&node, &node, 2).await;
    let other = client(&url).await;
    other.batch_execute("BEGIN; SELECT FROM syncdiffusion.predictions WHERE id = '0' FOR UPDATE").await.unwrap();
    for expected in [&["1"][..], &[]] {
        let Adopted { records, more } = node.adopt().await.unwrap();
        assert_eq!((ids(&records), more), (expected.to_vec(), true));
    }
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ids(&node.adopt().await.unwrap().records), ["0"]);
}
