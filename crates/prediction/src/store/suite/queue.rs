//! Who comes next, and how much waits.

use std::time::Duration;

use super::*;
use crate::store::Place;
use crate::store::work::WIRE;

super::cases!(
    first_in_first_out,
    rooms_are_kept,
    tenants_share,
    what_was_interrupted_runs_alone,
    nodes_claim_what_they_can,
    nodes_claim_what_was_accepted_for_their_model
);

async fn order(store: &dyn Store, places: usize) -> Vec<String> {
    let claimed = store.claim(Wants::any(places)).await.unwrap();
    claimed.iter().map(|claimed| claimed.record.prediction.id.clone()).collect()
}

async fn first_in_first_out(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    for (units, id) in [(30.0, "a"), (1.0, "b"), (20.0, "c"), (0.0, "d")] {
        a.accept(New::of(record(id), units), Room::ANY).await.unwrap();
    }
    assert_eq!(board(b).await, Board { waiting: 4, units: 51.0 });
    assert_eq!(b.place(3).await.unwrap(), Some(Place { before: 2, units: 31.0 }));
    assert_eq!(order(b, 2).await, ["a", "b"]);
    assert_eq!((a.place(1).await.unwrap(), a.place(9).await.unwrap()), (None, None));
    assert_eq!(b.place(4).await.unwrap(), Some(Place { before: 1, units: 20.0 }));
    b.stop("c").await.unwrap();
    assert_eq!(b.place(4).await.unwrap(), Some(Place::default()));
    assert_eq!(order(a, 9).await, ["d"]);
    assert_eq!(board(b).await, Board::default());
}

async fn rooms_are_kept(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let room = Room { free: 1, jobs: 3, units: 10.0, claims: u64::MAX };
    let accept = |id: &str, units| nodes.b.accept(New::of(record(id), units), room);
    assert!(b.admits(&room));
    assert!(matches!(accept("a", 100.0).await.unwrap(), Accepted::New(_)), "one could begin at once");
    assert!(!b.admits(&room));
    assert!(matches!(accept("b", 1.0).await.unwrap(), Accepted::Full(Board { waiting: 1, .. })));
    assert!(b.get("b").await.unwrap().is_none());
    claim(a).await;
    let one = |claims| Room { free: 1, jobs: 1, units: f64::INFINITY, claims };
    assert!(!a.admits(&one(0)), "the place was free before the claim");
    assert!(a.admits(&one(1)), "a place is free after the claim");
    for id in ["c", "d", "e"] {
        assert!(matches!(accept(id, 1.0).await.unwrap(), Accepted::New(_)));
    }
    assert!(matches!(accept("f", 1.0).await.unwrap(), Accepted::Full(Board { waiting: 3, .. })));
    // Those that are being accepted count.
    let many = (0..20).map(|n| a.accept(New::of(record(&n.to_string()), 0.0), Room { jobs: 8, ..Room::ANY }));
    let mut new = 0;
    for accepted in many.collect::<Vec<_>>() {
        new += usize::from(matches!(accepted.await.unwrap(), Accepted::New(_)));
    }
    assert_eq!((new, board(a).await.waiting), (5, 8));
}

async fn tenants_share(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let accept =
        |id: &str, tenant: &str| a.accept(New { tenant: tenant.to_owned(), ..New::of(record(id), 10.0) }, Room::ANY);
    for n in 0..6 {
        accept(&format!("many{n}"), "many").await.unwrap();
    }
    accept("few0", "few").await.unwrap();
    accept("few1", "few").await.unwrap();
    assert_eq!(order(b, 5).await, ["many0", "few0", "many1", "few1", "many2"]);
    accept("few2", "few").await.unwrap();
    assert_eq!(order(b, 2).await, ["many3", "few2"], "who was idle has saved nothing up");
}

async fn what_was_interrupted_runs_alone(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    for id in ["a", "b", "c"] {
        accept(a, record(id)).await;
    }
    let first = claim(a).await;
    a.give_back(&first.claim, true, String::new()).await.unwrap();
    let beside = Wants { alone: false, ..Wants::any(3) };
    assert!(b.claim(beside).await.unwrap().is_empty(), "nothing passes it");
    assert_eq!(order(b, 3).await, ["a"]);
    assert_eq!(order(a, 3).await, ["b", "c"]);
}

async fn nodes_claim_what_they_can(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    a.accept(New { wire: WIRE + 1, ..New::of(record("newer"), 1.0) }, Room::ANY).await.unwrap();
    a.accept(New::of(record("dear"), 100.0), Room::ANY).await.unwrap();
    accept(a, record("plain")).await;
    let wants = Wants { waited: Duration::from_hours(1), ..Wants::any(9) };
    assert!(b.claim(wants).await.unwrap().is_empty(), "idle nodes come first");
    let wants = Wants { units: 10.0, ..Wants::any(9) };
    let claimed = b.claim(wants).await.unwrap();
    assert_eq!(claimed.iter().map(|claimed| claimed.record.prediction.id.as_str()).collect::<Vec<_>>(), ["plain"]);
    assert_eq!(order(b, 9).await, ["dear"]);
    let claimed = b.claim(Wants { wire: WIRE + 1, ..Wants::any(9) }).await.unwrap();
    assert_eq!(claimed[0].record.prediction.id, "newer");
}

async fn nodes_claim_what_was_accepted_for_their_model(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    for (id, version) in [("old", Some("1")), ("new", Some("2")), ("any", None), ("old2", Some("1"))] {
        let mut record = record(id);
        record.prediction.version = version.map(str::to_owned);
        accept(a, record).await;
    }
    let wants = |version: &str| Wants { version: Some(version.to_owned()), ..Wants::any(9) };
    let ids = async |version: &str| -> Vec<String> {
        let claimed = b.claim(wants(version)).await.unwrap();
        claimed.iter().map(|claimed| claimed.record.prediction.id.clone()).collect()
    };
    assert_eq!(ids("2").await, ["new", "any"]);
    // What was interrupted holds up nobody who has another model.
    let old = b.claim(Wants { places: 1, ..wants("1") }).await.unwrap();
    b.give_back(&old[0].claim, true, String::new()).await.unwrap();
    assert!(ids("2").await.is_empty());
    accept(a, record("later")).await;
    assert_eq!(ids("2").await, ["later"]);
    assert_eq!(ids("1").await, ["old"]);
    assert_eq!(ids("1").await, ["old2"]);
}
