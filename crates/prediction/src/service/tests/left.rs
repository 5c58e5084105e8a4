//! What other nodes leave behind, and what they make of an id.

use std::sync::atomic::AtomicU64;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::*;
use crate::store::{Accepted, Claimed, New, Outcome, Record, Room, Stopped, Wants, record_of};
use crate::time::Time;

/// What has not come after this time does not come any more.
const MAX_WAIT: Duration = Duration::from_secs(30);

fn new(id: &str) -> New {
    New::of(record_of(id, &json!({"prompt": id}), 0), 1.0)
}

/// A node leaves, as its server does.
async fn leave(node: &Memory) {
    let Beat::Alive { node: me, nodes, .. } = node.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    let mine = nodes.iter().find(|peer| peer.node == me).unwrap();
    assert!(node.reap(me, mine.beat).await.unwrap());
}

#[tokio::test]
async fn what_the_last_other_node_leaves_is_looked_after() {
    crate::install_crypto();
    let store = Arc::new(Flaky::default());
    // Long enough for a test that stands still for a while, with beats that are waited for.
    let lease = Duration::from_secs(5);
    let prepared = Service::prepare(Arc::clone(&store) as Arc<dyn Store>, Options { lease, ..options() }, 1);
    let shared = prepared.await.unwrap();
    let other = store.join();
    // It must not be taken for dead before it leaves.
    while shared.table().others.is_empty() {
        other.beat(&About::default(), Vec::new()).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    for id in ["a", "b", "c"] {
        assert!(matches!(other.accept(new(id), Room::ANY).await.unwrap(), Accepted::New(_)));
    }
    // Another one has locked them for a moment, and they come in parts.
    store.parts.lock().unwrap().extend([0, 1, 0, 1]);
    leave(&other).await;
    let is_kept = |id: &&str| shared.active(id).is_some_and(|active| active.is_kept());
    let all_kept = async {
        while !["a", "b", "c"].iter().all(is_kept) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(MAX_WAIT, all_kept).await.is_ok(), "nobody looks after it");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_process_left_is_taken_over_in_parts() {
    let (first, store) = service(1).await;
    for id in ["a", "b", "c"] {
        first.new_ticket(request(id)).await;
    }
    let second = store.join();
    reap(&second).await;
    let store = Flaky::over(second);
    store.parts.lock().unwrap().extend([1, 1]);
    let shared = Service::prepare(Arc::new(store), options(), 1).await.unwrap();
    assert!(["a", "b", "c"].iter().all(|id| shared.active(id).is_some()));
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_stops_no_other_prediction_of_the_id() {
    let (service, store) = service(1).await;
    let _runs = service.new_ticket(request("runs")).await;
    service.job("runs").await;
    let ticket = service.new_ticket(Request { detached: false, ..request("a") }).await;
    // Another node ends it, and a third client uses its id there; nobody has told this one yet.
    let other = store.join();
    let Claimed { claim, record, .. } = other.claim(Wants::any(1)).await.unwrap().remove(0);
    let mut ended = Record::clone(&record);
    ended.prediction.status = Status::Failed;
    ended.prediction.completed_at = Some(Time::now());
    assert!(matches!(other.finish(&claim, ended, Vec::new()).await.unwrap(), Outcome::Ended(_)));
    assert!(matches!(other.accept(new("a"), Room::ANY).await.unwrap(), Accepted::New(_)));
    drop(ticket);
    sleep(Duration::from_millis(50)).await;
    let status = async || other.get("a").await.unwrap().unwrap().record.prediction.status;
    assert_eq!(status().await, Status::Starting);
    // Who cancels an id means the one that has it.
    assert!(service.cancel("a").await.unwrap());
    assert_eq!(status().await, Status::Canceled);
    assert!(!service.cancel("a").await.unwrap());
}

/// Counts what ended as canceled.
#[derive(Default)]
struct Canceled(Arc<AtomicU64>);

impl Recorder for Canceled {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let is_it = key.name() == "syncdiffusion_predictions_total"
            && key.labels().any(|label| (label.key(), label.value()) == ("status", "canceled"));
        if is_it { Counter::from_arc(Arc::clone(&self.0)) } else { Counter::noop() }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn the_end_of_what_nobody_here_draws_is_counted_and_looked_after() {
    crate::install_crypto();
    let canceled = Canceled::default();
    let _counting = metrics::set_default_local_recorder(&canceled);
    let store = Arc::new(Flaky::default());
    let lease = Duration::from_millis(600);
    let prepared = Service::prepare(Arc::clone(&store) as Arc<dyn Store>, Options { lease, ..options() }, 1);
    let _shared = prepared.await.unwrap();
    let adoptions = async |least: u32| {
        let looked = async {
            while store.adoptions.load(Ordering::SeqCst) < least {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(MAX_WAIT, looked).await.is_ok(), "nobody looks for what is left");
    };
    // At the start and after the first beat; alone, there is no other occasion.
    adoptions(2).await;
    assert!(matches!(store.accept(new("a"), Room::ANY).await.unwrap(), Accepted::New(_)));
    assert_eq!(store.claim(Wants::any(1)).await.unwrap().len(), 1);
    assert_eq!(store.stop_one("a", None).await.unwrap(), Stopped::Asked);
    adoptions(3).await;
    assert_eq!(canceled.0.load(Ordering::SeqCst), 1);
}
