//! What has ended: lists, files, removal.

use std::time::Duration;

use super::*;
use crate::store::{Query, Retention};

super::cases!(
    lists_are_pages_newest_first,
    files_go_with_their_predictions,
    retention_removes_the_oldest,
    owed_ends_stay
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
