//! What has ended: lists, files, removal.

use std::time::Duration;

use super::*;
use crate::store::{Found, Kind, MAX_LOOKED, Query, Retention, Usage};

super::cases!(
    lists_are_pages_newest_first,
    prompts_are_searched,
    searches_are_bounded,
    copies_go_with_their_pictures,
    files_go_with_their_predictions,
    retention_removes_the_oldest,
    owed_ends_stay,
    usage_outlives_predictions
);

async fn lists_are_pages_newest_first(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    for n in 1..=4 {
        end(a, record(&format!("e{n}")), b"").await;
    }
    for n in 5..=7 {
        accept(a, record(&format!("w{n}"))).await;
    }
    let page = Query { limit: 3, ..Query::default() };
    let list = async |query| ids(&b.list(query).await.unwrap()).into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(list(page).await, ["w7", "w6", "w5"]);
    assert_eq!(list(Query { before: Some(6), ..page }).await, ["w5", "e4", "e3"]);
    assert_eq!(list(Query { after: Some(3), ..page }).await, ["w6", "w5", "e4"]);
    assert_eq!(list(Query { after: Some(u64::MAX), ..page }).await, [""; 0]);
    assert_eq!(list(Query { before: Some(0), ..page }).await, [""; 0]);
    let status = |status| Query { status: Some(status), ..page };
    assert_eq!(list(status(Status::Starting)).await, ["w7", "w6", "w5"]);
    assert_eq!(list(Query { before: Some(4), ..status(Status::Succeeded) }).await, ["e3", "e2", "e1"]);
    assert_eq!(list(Query { after: Some(1), ..status(Status::Succeeded) }).await, ["e4", "e3", "e2"]);
    assert_eq!(list(status(Status::Failed)).await, [""; 0]);
}

async fn prompts_are_searched(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let with = |id: &str, prompt: &str| {
        let mut record = record(id);
        record.prediction.input.prompt = prompt.to_owned();
        record
    };
    end(a, with("1", "A Lake, 50% \"blue\""), b"").await;
    end(a, with("2", "a hill"), b"").await;
    end(a, with("3", "LAKE at dawn"), b"").await;
    accept(a, with("4", "ÉTÉ 日本")).await;
    accept(a, with("5", "the lake\nagain")).await;
    let search = async |text: &str, query: Query<'_>| {
        let found = b.search(Query { text: Some(text), limit: 9, ..query }).await.unwrap();
        assert_eq!(found.looked, None, "it has looked at all");
        ids(&found.records).concat()
    };
    let all = Query::default();
    for (text, found) in
        [("lake", "531"), ("Lake", "531"), ("été 日", "4"), ("0% \"B", "1"), ("\nAGAIN", "5"), ("%", "1"), ("sea", "")]
    {
        assert_eq!(search(text, all).await, found, "{text}");
    }
    let status = |status| Query { status: Some(status), ..all };
    assert_eq!(search("lake", status(Status::Succeeded)).await, "31");
    assert_eq!(search("lake", status(Status::Starting)).await, "5");
    assert_eq!(search("lake", Query { before: Some(5), ..all }).await, "31");
    assert_eq!(search("lake", Query { after: Some(1), ..all }).await, "53");
    let page = |query| b.search(Query { text: Some("lake"), limit: 1, ..query });
    assert_eq!(ids(&page(all).await.unwrap().records), ["5"]);
    assert_eq!(ids(&page(Query { after: Some(0), ..all }).await.unwrap().records), ["1"], "the oldest of them");
}

async fn searches_are_bounded(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let many = MAX_LOOKED as u64 + 20;
    let accepted = (1..=many).map(|n| a.accept(New::of(record(&n.to_string()), 0.0), Room::ANY));
    for accepted in accepted.collect::<Vec<_>>() {
        accepted.await.unwrap();
    }
    let search = async |text, query: Query<'_>| {
        let Found { records, looked } = b.search(Query { text: Some(text), limit: 3, ..query }).await.unwrap();
        (records.iter().map(|record| record.seq).collect::<Vec<_>>(), looked)
    };
    let (all, last) = (Query::default(), many - MAX_LOOKED as u64 + 1);
    assert_eq!(search("nothing", all).await, (vec![], Some(last)));
    assert_eq!(search("nothing", Query { before: Some(last), ..all }).await, (vec![], None));
    assert_eq!(search("nothing", Query { after: Some(0), ..all }).await, (vec![], Some(MAX_LOOKED as u64)));
    assert_eq!(search("21", all).await, (vec![421, 321, 221], None));
    assert_eq!(search("1", all).await.1, None, "the list is full before");
    assert_eq!(b.list(Query { limit: 1000, ..all }).await.unwrap().len() as u64, many, "without a text nothing is");
}

async fn copies_go_with_their_pictures(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let small = |n| Which { kind: Kind::Thumbnail(64), n };
    let copy = |n, bytes: &[u8]| Picture { which: small(n), media: "image/jpeg".to_owned(), ..picture(bytes) };
    let ended = end(a, record("p"), &[0; 10]).await;
    assert_eq!(b.picture("p", small(0)).await.unwrap(), None);
    b.add_picture("p", ended.seq + 1, copy(0, b"of another")).await.unwrap();
    assert_eq!(b.picture("p", small(0)).await.unwrap(), None);
    b.add_picture("p", ended.seq, copy(0, b"small")).await.unwrap();
    assert_eq!(a.picture("p", small(0)).await.unwrap(), Some(copy(0, b"small")));
    assert_eq!(a.picture("p", small(1)).await.unwrap(), None);
    assert_eq!(a.get("p").await.unwrap().unwrap().picture.as_deref(), Some(&[0; 10][..]));
    let bare = b.record("p").await.unwrap().unwrap();
    assert_eq!((bare.seq, &bare.prediction.output), (ended.seq, &None), "it is of the record alone");
    assert!(b.record("q").await.unwrap().is_none());
    // It counts as the picture does, and goes with it.
    assert_eq!(a.sweep(Retention { bytes: Some(15), ..Retention::default() }).await.unwrap(), 0);
    assert_eq!(a.sweep(Retention { bytes: Some(14), ..Retention::default() }).await.unwrap(), 1);
    assert_eq!(b.picture("p", small(0)).await.unwrap(), None);
    b.add_picture("p", ended.seq, copy(0, b"late")).await.unwrap();
    assert_eq!(b.picture("p", small(0)).await.unwrap(), None);
    assert!(b.record("p").await.unwrap().is_none());
    let again = accept(a, record("p")).await;
    assert_eq!(b.record("p").await.unwrap().unwrap().seq, again, "it waits");
}

async fn files_go_with_their_predictions(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    accept(a, record("f")).await;
    let claimed = claim(a).await;
    let named = Record { file: Some("named.png".to_owned()), ..succeeded(&claimed) };
    a.finish(&claimed.claim, named, vec![picture(b"named")]).await.unwrap();
    assert_eq!(b.file("named.png").await.unwrap().as_deref(), Some(&b"named"[..]));
    assert!(b.file("f").await.unwrap().is_none() && b.file("").await.unwrap().is_none());
    assert!(b.delete("f").await.unwrap() && !b.delete("f").await.unwrap());
    assert!(a.file("named.png").await.unwrap().is_none() && a.get("f").await.unwrap().is_none());
}

async fn retention_removes_the_oldest(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let left = async || {
        let all = b.list(Query { limit: 1000, ..Query::default() }).await.unwrap();
        all.iter().rev().map(|record| record.prediction.id.clone()).collect::<Vec<_>>()
    };
    accept(a, record("waits")).await;
    for n in 1..=4 {
        accept(a, record(&format!("e{n}"))).await;
    }
    a.stop("waits").await.unwrap();
    accept(a, record("waits")).await;
    for _ in 1..=4 {
        let claimed = claim(a).await;
        a.finish(&claimed.claim, succeeded(&claimed), vec![picture(&[0; 10])]).await.unwrap();
    }
    assert_eq!(b.sweep(Retention::default()).await.unwrap(), 0);
    assert_eq!(b.sweep(Retention { count: Some(4), bytes: Some(40), ..Retention::default() }).await.unwrap(), 0);
    assert_eq!(b.sweep(Retention { bytes: Some(35), ..Retention::default() }).await.unwrap(), 1);
    assert_eq!(left().await, ["e2", "e3", "e4", "waits"]);
    assert_eq!(b.sweep(Retention { count: Some(2), ..Retention::default() }).await.unwrap(), 1);
    assert!(b.delete("e4").await.unwrap());
    let age = |age| Retention { age: Some(age), ..Retention::default() };
    assert_eq!(b.sweep(age(Duration::from_hours(1))).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(b.sweep(age(Duration::ZERO)).await.unwrap(), 1);
    assert_eq!(left().await, ["waits"]);
    assert_eq!(claim(a).await.record.prediction.id, "waits");
}

async fn owed_ends_stay(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let owes = end(a, with_webhook("owes"), &[0; 10]).await;
    for n in 1..=3 {
        end(a, record(&n.to_string()), &[0; 10]).await;
    }
    assert!(b.get("owes").await.unwrap().unwrap().owed);
    // It counts, but the next one goes in its place only if that is too old by itself.
    assert_eq!(b.sweep(Retention { count: Some(3), ..Retention::default() }).await.unwrap(), 0);
    assert_eq!(b.sweep(Retention { bytes: Some(25), ..Retention::default() }).await.unwrap(), 1);
    assert!(b.get("owes").await.unwrap().is_some() && b.get("1").await.unwrap().is_none());
    a.mark_delivered("owes", owes.seq + 1).await.unwrap();
    assert!(b.get("owes").await.unwrap().unwrap().owed, "that is another's");
    a.mark_delivered("owes", owes.seq).await.unwrap();
    assert_eq!(b.sweep(Retention { count: Some(2), ..Retention::default() }).await.unwrap(), 1);
    assert!(b.get("owes").await.unwrap().is_none());
    let owes = end(a, with_webhook("owes"), b"").await;
    assert!(b.delete("owes").await.unwrap(), "who deletes it gives its webhook up");
    b.mark_delivered("owes", owes.seq).await.unwrap();
}

async fn usage_outlives_predictions(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    assert_eq!(a.usage().await.unwrap(), []);
    let accept = async |id: &str, tenant: &str, outputs: u32| {
        let mut record = record(id);
        record.prediction.input.num_outputs = outputs;
        a.accept(New { tenant: tenant.to_owned(), ..New::of(record, 1.0) }, Room::ANY).await.unwrap();
    };
    let ends = async |status: Status, seconds: f64| {
        let claimed = claim(a).await;
        let mut record = succeeded(&claimed);
        record.prediction.status = status;
        record.prediction.metrics.predict_time = Some(seconds);
        a.finish(&claimed.claim, record, vec![]).await.unwrap();
    };
    accept("1", "", 1).await;
    ends(Status::Succeeded, 1.5).await;
    accept("2", "alice", 4).await;
    ends(Status::Succeeded, 8.0).await;
    accept("3", "alice", 1).await;
    ends(Status::Failed, 0.5).await;
    // One that waits takes nothing.
    accept("4", "alice", 1).await;
    a.stop("4").await.unwrap();
    accept("5", "bob", 1).await;
    let pixels = 2048.0 * 512.0 / 1e6;
    let usage = |name: &str, predictions, succeeded, megapixels, seconds| Usage {
        name: name.to_owned(),
        predictions,
        succeeded,
        megapixels,
        seconds,
    };
    let expected = [usage("", 1, 1, pixels, 1.5), usage("alice", 3, 1, 4.0 * pixels, 8.5)];
    assert_eq!(b.usage().await.unwrap(), expected, "what has not ended is not counted");
    assert_eq!(b.sweep(Retention { count: Some(0), ..Retention::default() }).await.unwrap(), 4);
    assert_eq!(a.usage().await.unwrap(), expected);
    let claimed = claim(a).await;
    a.stop("5").await.unwrap();
    a.finish(&claimed.claim, succeeded(&claimed), vec![]).await.unwrap();
    assert_eq!(a.usage().await.unwrap()[2], usage("bob", 1, 0, 0.0, 0.0), "it was asked to stop");
}
