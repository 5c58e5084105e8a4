//! What nodes say of their models, and what waits for which.

use serde_json::json;

use super::*;
use crate::store::{Board, Place};

/// A node with a worker for a version of a model.
fn about(version: &str, units_per_second: Option<f64>) -> About {
    let model = json!({
        "name": "m", "version": version, "window": 64, "vae_factor": 8, "device": "cpu", "dtype": "f32"
    });
    About { model: serde_json::from_value(model).unwrap(), ready: 1, free: 1, units_per_second, ..About::default() }
}

/// The version and the speed that are remembered when a node says this.
async fn remembered(store: &Postgres, about: &About) -> Option<(String, Option<f64>)> {
    let Beat::Alive { last, .. } = store.beat(about, Vec::new()).await.unwrap() else { panic!() };
    let last = last?;
    assert!(!last.draws());
    Some((last.model.unwrap().version, last.units_per_second))
}

#[tokio::test]
async fn the_model_of_the_last_node_with_workers_is_remembered() {
    let Some(url) = database() else { return };
    let a = Postgres::open(&url).unwrap();
    let b = a.join().unwrap();
    let idle = About::default();
    assert_eq!(remembered(&b, &idle).await, None);
    let is = |version: &str, speed| Some((version.to_owned(), speed));
    assert_eq!(remembered(&b, &about("b", None)).await, is("b", None));
    assert_eq!(remembered(&b, &about("b", Some(10.0))).await, is("b", Some(10.0)));
    assert_eq!(remembered(&b, &about("b", Some(11.0))).await, is("b", Some(10.0)), "that is as fast");
    // All nodes agree on the newest of those that are there.
    assert_eq!(remembered(&a, &about("a", Some(5.0))).await, is("b", Some(10.0)));
    assert_eq!(remembered(&b, &idle).await, is("a", Some(5.0)));
    b.leave().unwrap();
    assert_eq!(remembered(&a, &idle).await, is("a", Some(5.0)));
    a.leave().unwrap();
    let c = Postgres::open(&url).unwrap();
    assert_eq!(remembered(&c, &idle).await, is("a", Some(5.0)), "nobody else is there");
}

#[tokio::test]
async fn what_waits_for_another_version_is_counted_apart() {
    let Some(url) = database() else { return };
    let store = Postgres::open(&url).unwrap();
    for (id, version) in [("1", Some("old")), ("2", Some("old")), ("3", None), ("4", Some("new")), ("5", Some("new"))] {
        let mut record = record(id);
        record.prediction.version = version.map(str::to_owned);
        accept(&store, record).await;
    }
    let place = async |seq| store.place(seq).await.unwrap();
    assert_eq!(place(5).await.map(|place| place.before), Some(4), "it was not looked at yet");
    let of = |waiting: u64| Board { waiting, units: waiting as f64 };
    let counted = store.by_version().await.unwrap();
    assert_eq!(counted, [("new".to_owned(), of(2)), ("old".to_owned(), of(2))]);
    assert_eq!(place(5).await, Some(Place { before: 2, units: 2.0 }));
    assert_eq!(place(3).await, Some(Place { before: 2, units: 2.0 }), "any node may draw it");
    for id in ["1", "2"] {
        store.stop(id).await.unwrap();
    }
    assert_eq!(store.by_version().await.unwrap(), [("new".to_owned(), of(2))]);
    assert_eq!(place(5).await.map(|place| place.before), Some(2));
}
