//! From acceptance to an end.

use super::*;
use crate::store::{Kind, Stopped};

super::cases!(
    several_pictures_are_kept_in_order,
    a_life,
    an_end_needs_its_claim,
    what_is_given_back_is_claimed_again,
    a_stop_ends_what_waits_and_is_obeyed_by_what_runs,
    an_id_is_used_again_when_it_has_ended,
    a_stop_by_number_is_for_no_other_of_the_id,
    an_id_that_owes_its_end_is_not_used_again,
    a_key_finds_its_prediction,
    pictures_of_all_kinds,
);

async fn several_pictures_are_kept_in_order(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let several = |id: &str| {
        let mut record = record(id);
        record.prediction.input.num_outputs = 3;
        record
    };
    let output = |n: u32| {
        let which = Which { kind: Kind::Output, n };
        Picture { which, file: Some(format!("{n}.png")), ..picture(&[n as u8]) }
    };
    accept(a, several("a")).await;
    let claimed = claim(a).await;
    let named = Record { file: Some("0.png".to_owned()), ..succeeded(&claimed) };
    a.finish(&claimed.claim, named, vec![output(2), output(0), output(1)]).await.unwrap();
    let stored = b.get("a").await.unwrap().unwrap();
    assert_eq!((stored.picture.as_deref(), stored.more.len()), (Some(&[0][..]), 2));
    assert_eq!((&*stored.more[0], &*stored.more[1]), (&[1][..], &[2][..]));
    let uris = |bytes: &[u8]| crate::output::data_uri(bytes);
    assert_eq!(stored.into_prediction().output.unwrap().pictures(), [uris(&[0]), uris(&[1]), uris(&[2])]);
    for n in 0..3 {
        assert_eq!(b.file(&format!("{n}.png")).await.unwrap().as_deref(), Some(&[n as u8][..]));
        assert_eq!(b.picture("a", Which { kind: Kind::Output, n }).await.unwrap(), Some(output(n)));
    }
    assert!(b.delete("a").await.unwrap());
    assert!(a.file("0.png").await.unwrap().is_none() && a.file("2.png").await.unwrap().is_none());
    // What is canceled has none of them.
    accept(a, several("b")).await;
    let claimed = claim(a).await;
    a.stop("b").await.unwrap();
    a.finish(&claimed.claim, succeeded(&claimed), vec![output(0), output(1)]).await.unwrap();
    let stored = b.get("b").await.unwrap().unwrap();
    assert_eq!((stored.record.prediction.status, stored.picture, stored.more.len()), (Status::Canceled, None, 0));
    assert!(b.file("1.png").await.unwrap().is_none());
}

async fn a_life(nodes: &Nodes) {
    let (a, b, c) = (&*nodes.a, &*nodes.b, &*nodes.c);
    for id in ["a", "b/ü", ""] {
        accept(a, record(id)).await;
    }
    assert_eq!(status(b, "b/ü").await, Status::Starting);
    assert_eq!(b.get("b/ü").await.unwrap().unwrap().record.prediction.input.prompt, "b/ü");
    assert!(b.get("c").await.unwrap().is_none());

    let claimed = claim(b).await;
    assert_eq!((claimed.record.prediction.id.as_str(), claimed.claim.seq, claimed.attempts), ("a", 1, 1));
    let running = c.get("a").await.unwrap().unwrap().record;
    assert_eq!((running.prediction.status, running.attempts), (Status::Processing, 1));
    assert_eq!(running.prediction.started_at, Some(claimed.started_at));
    assert!(!c.delete("a").await.unwrap(), "what has not ended stays");

    let end = b.finish(&claimed.claim, succeeded(&claimed), vec![picture(b"png")]).await.unwrap();
    assert_eq!(end, Outcome::Ended(Box::new(succeeded_at(&claimed, &end))));
    let a_stored = c.get("a").await.unwrap().unwrap();
    assert_eq!(
        (a_stored.record.prediction.status, a_stored.picture.as_deref()),
        (Status::Succeeded, Some(&b"png"[..]))
    );
    assert_eq!(ids(&[(*claim(c).await.record).clone(), (*claim(a).await.record).clone()]), ["b/ü", ""]);
    assert!(a.claim(Wants::any(9)).await.unwrap().is_empty());
}

/// The end that was stored, but for its time.
fn succeeded_at(claimed: &Claimed, end: &Outcome) -> Record {
    let Outcome::Ended(stored) = end else { panic!("{end:?}") };
    let mut record = succeeded(claimed);
    record.prediction.completed_at = stored.prediction.completed_at;
    record
}

async fn an_end_needs_its_claim(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    accept(a, record("a")).await;
    let first = claim(a).await;
    assert_eq!(a.give_back(&first.claim, true, String::new()).await.unwrap(), Outcome::Waits);
    let second = claim(b).await;
    assert_ne!(first.claim.token, second.claim.token);
    assert_eq!(a.finish(&first.claim, succeeded(&first), vec![picture(b"old")]).await.unwrap(), Outcome::Fenced);
    assert_eq!(a.give_back(&first.claim, true, String::new()).await.unwrap(), Outcome::Fenced);
    let end = b.finish(&second.claim, succeeded(&second), vec![picture(b"new")]).await.unwrap();
    assert!(matches!(end, Outcome::Ended(_)));
    assert_eq!(b.finish(&second.claim, succeeded(&second), Vec::new()).await.unwrap(), Outcome::Fenced, "it ends once");
    assert_eq!(a.get("a").await.unwrap().unwrap().picture.as_deref(), Some(&b"new"[..]));
}

async fn what_is_given_back_is_claimed_again(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    accept(a, record("a")).await;
    accept(a, record("b")).await;
    let first = claim(a).await;
    a.give_back(&first.claim, false, "line\n".to_owned()).await.unwrap();
    let waits = b.get("a").await.unwrap().unwrap().record;
    assert_eq!((waits.prediction.status, waits.attempts, waits.prediction.started_at), (Status::Starting, 0, None));
    assert_eq!(waits.prediction.logs, "line\n");
    let again = claim(b).await;
    assert_eq!((again.record.prediction.id.as_str(), again.attempts), ("a", 1), "it is first, and was not counted");
    b.give_back(&again.claim, true, String::new()).await.unwrap();
    let last = claim(a).await;
    assert_eq!((last.record.prediction.id.as_str(), last.attempts), ("a", 2));
}

async fn a_stop_ends_what_waits_and_is_obeyed_by_what_runs(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    assert_eq!(a.stop("a").await.unwrap(), Stopped::Unknown);
    accept(a, with_webhook("a")).await;
    accept(a, record("b")).await;
    accept(a, record("c")).await;
    let Stopped::Ended(end) = b.stop("a").await.unwrap() else { panic!("it waits") };
    assert_eq!((end.prediction.status, end.prediction.metrics.predict_time), (Status::Canceled, Some(0.0)));
    assert!(end.prediction.completed_at.is_some() && a.get("a").await.unwrap().unwrap().owed);
    assert_eq!(a.stop("a").await.unwrap(), Stopped::TooLate);

    let runs = claim(a).await;
    assert_eq!(runs.record.prediction.id, "b");
    assert_eq!(b.stop("b").await.unwrap(), Stopped::Asked);
    assert_eq!(b.stop("b").await.unwrap(), Stopped::Asked);
    let Outcome::Ended(end) = a.finish(&runs.claim, succeeded(&runs), vec![picture(b"png")]).await.unwrap() else {
        panic!("the claim holds")
    };
    assert_eq!((end.prediction.status, end.prediction.output), (Status::Canceled, None));
    assert!(b.get("b").await.unwrap().unwrap().picture.is_none());

    let runs = claim(a).await;
    b.stop("c").await.unwrap();
    let Outcome::Ended(end) = a.give_back(&runs.claim, true, "said\n".to_owned()).await.unwrap() else {
        panic!("what was asked to stop does not wait again")
    };
    assert_eq!((end.prediction.status, end.prediction.logs.as_str()), (Status::Canceled, "said\n"));
}

async fn an_id_is_used_again_when_it_has_ended(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let again = |idempotent| New { idempotent, ..New::of(record("a"), 1.0) };
    let full = Room { jobs: 0, ..Room::ANY };
    accept(a, record("a")).await;
    for idempotent in [false, true] {
        let Accepted::Known(known) = b.accept(again(idempotent), full).await.unwrap() else { panic!("it waits") };
        assert_eq!(known.record.prediction.status, Status::Starting);
    }
    let claimed = claim(a).await;
    let Accepted::Known(known) = b.accept(again(false), full).await.unwrap() else { panic!("it runs") };
    assert_eq!(known.record.prediction.status, Status::Processing);
    a.finish(&claimed.claim, succeeded(&claimed), vec![picture(b"png")]).await.unwrap();
    let Accepted::Known(known) = b.accept(again(true), full).await.unwrap() else { panic!("it is asked for") };
    assert_eq!((known.record.seq, known.picture.as_deref()), (1, Some(&b"png"[..])));
    let Accepted::Full(_) = b.accept(again(false), full).await.unwrap() else { panic!("there is no room") };
    assert!(b.get("a").await.unwrap().unwrap().picture.is_some(), "nothing refused is done");
    let Accepted::New(seq) = b.accept(again(false), Room::ANY).await.unwrap() else { panic!("there is room") };
    assert_eq!(seq, 2);
    let stored = a.get("a").await.unwrap().unwrap();
    assert_eq!((stored.record.seq, stored.record.prediction.status), (2, Status::Starting));
    assert!(stored.picture.is_none(), "a record that replaces another has none of its pictures");
    assert_eq!(a.finish(&claimed.claim, succeeded(&claimed), Vec::new()).await.unwrap(), Outcome::Fenced);
}

async fn a_stop_by_number_is_for_no_other_of_the_id(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let ended = end(a, record("a"), b"png").await.seq;
    assert_eq!(a.stop_one("a", Some(ended)).await.unwrap(), Stopped::TooLate);
    let seq = accept(b, record("a")).await;
    assert_eq!(a.stop_one("a", Some(ended)).await.unwrap(), Stopped::TooLate, "another waits");
    assert_eq!(status(b, "a").await, Status::Starting);
    let claimed = claim(b).await;
    assert_eq!(a.stop_one("a", Some(ended)).await.unwrap(), Stopped::TooLate, "another runs");
    let end = b.finish(&claimed.claim, succeeded(&claimed), Vec::new()).await.unwrap();
    assert!(matches!(end, Outcome::Ended(end) if end.prediction.status == Status::Succeeded && end.seq == seq));
    let waits = accept(b, record("b")).await;
    assert!(matches!(a.stop_one("b", Some(waits)).await.unwrap(), Stopped::Ended(end) if end.seq == waits));
    assert_eq!(a.stop_one("c", Some(seq)).await.unwrap(), Stopped::Unknown);
}

async fn an_id_that_owes_its_end_is_not_used_again(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let ended = end(a, with_webhook("a"), b"png").await;
    let Accepted::Known(known) = b.accept(New::of(record("a"), 1.0), Room::ANY).await.unwrap() else {
        panic!("its webhook would be lost")
    };
    assert!(known.owed);
    b.mark_delivered("a", ended.seq).await.unwrap();
    accept(b, record("a")).await;
}

async fn a_key_finds_its_prediction(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let keyed = |id, tenant: &str, key: &str| New {
        tenant: tenant.to_owned(),
        key: Some(key.to_owned()),
        ..New::of(record(id), 1.0)
    };
    assert!(matches!(a.accept(keyed("a", "", "k"), Room::ANY).await.unwrap(), Accepted::New(1)));
    for _ in 0..2 {
        let Accepted::Known(known) = b.accept(keyed("b", "", "k"), Room::ANY).await.unwrap() else {
            panic!("the same key")
        };
        assert_eq!(known.record.prediction.id, "a");
        for node in [a, b] {
            let found = node.of_key("", "k").await.unwrap().unwrap();
            assert_eq!(found.record.prediction.id, "a");
            assert_eq!(found.record.prediction.status, known.record.prediction.status);
        }
        if let Some(claimed) = a.claim(Wants::any(1)).await.unwrap().pop() {
            a.finish(&claimed.claim, succeeded(&claimed), Vec::new()).await.unwrap();
        }
    }
    assert!(
        matches!(b.accept(keyed("c", "other", "k"), Room::ANY).await.unwrap(), Accepted::New(_)),
        "a key is its tenant's"
    );
    assert!(matches!(b.accept(keyed("d", "", "l"), Room::ANY).await.unwrap(), Accepted::New(_)));
    for (tenant, key, id) in [("other", "k", "c"), ("", "l", "d")] {
        assert_eq!(a.of_key(tenant, key).await.unwrap().unwrap().record.prediction.id, id);
    }
    assert!(a.of_key("other", "l").await.unwrap().is_none());
    assert!(a.delete("a").await.unwrap());
    assert!(b.of_key("", "k").await.unwrap().is_none());
    assert!(matches!(b.accept(keyed("b", "", "k"), Room::ANY).await.unwrap(), Accepted::New(_)), "it is gone with it");
}

async fn pictures_of_all_kinds(nodes: &Nodes) {
    let (a, b) = (&*nodes.a, &*nodes.b);
    let picture = |kind, n, file: Option<&str>, bytes: &[u8]| Picture {
        which: Which { kind, n },
        media: "image/webp".to_owned(),
        file: file.map(str::to_owned),
        bytes: bytes.into(),
    };
    let input = picture(Kind::Input("image".to_owned()), 0, Some("given"), b"input");
    let new = New { inputs: vec![input.clone()], ..New::of(record("a"), 1.0) };
    a.accept(new, Room::ANY).await.unwrap();
    assert_eq!(b.picture("a", input.which.clone()).await.unwrap(), Some(input.clone()));
    let claimed = claim(b).await;
    let outputs =
        vec![picture(Kind::Output, 0, Some("first.webp"), b"0"), picture(Kind::Output, 1, Some("second.webp"), b"1")];
    b.finish(&claimed.claim, succeeded(&claimed), outputs.clone()).await.unwrap();
    let small = picture(Kind::Thumbnail(512), 1, None, b"small");
    a.add_picture("a", claimed.claim.seq, small.clone()).await.unwrap();
    a.add_picture("a", claimed.claim.seq + 1, picture(Kind::Output, 2, None, b"another's")).await.unwrap();
    for wanted in outputs.iter().chain([&small, &input]) {
        assert_eq!(b.picture("a", wanted.which.clone()).await.unwrap().as_ref(), Some(wanted));
    }
    assert_eq!(b.picture("a", Which { kind: Kind::Output, n: 2 }).await.unwrap(), None);
    assert_eq!(b.get("a").await.unwrap().unwrap().picture.as_deref(), Some(&b"0"[..]));
    assert_eq!(b.file("second.webp").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(b.file("given").await.unwrap().as_deref(), Some(&b"input"[..]));
    assert!(b.delete("a").await.unwrap());
    for name in ["first.webp", "second.webp", "given"] {
        assert!(a.file(name).await.unwrap().is_none(), "{name} goes with its prediction");
    }
    assert_eq!(a.picture("a", small.which).await.unwrap(), None);
}
