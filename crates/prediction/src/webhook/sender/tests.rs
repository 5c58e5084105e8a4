//! With tokio's clock paused, and a receiver without a network: time passes only when nothing is left to do, so hours
//! take no time, and nothing depends on the speed of the machine.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::*;
use crate::feed::Feed;
use crate::lifecycle::End;
use crate::output::Wanted;
use crate::store::{Claimed, Memory, New, Room, Wants};
use crate::webhook::transport::{Sending, judge};
use crate::wire::tests::accepted;

/// A receiver, and all that it received: when, what, and the status of its answer; 0 if it could not be reached.
struct Receiver {
    begun: Instant,
    answer: Box<dyn Fn(Duration) -> (u16, Option<u64>) + Send + Sync>,
    takes: Duration,
    came: Mutex<Vec<(Duration, Delivery, u16)>>,
}

impl Receiver {
    /// One that answers by how much time has passed.
    fn new(answer: impl Fn(Duration) -> (u16, Option<u64>) + Send + Sync + 'static) -> Arc<Self> {
        Self::slow(Duration::ZERO, answer)
    }

    fn slow(takes: Duration, answer: impl Fn(Duration) -> (u16, Option<u64>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), answer: Box::new(answer), takes, came: Mutex::default() })
    }

    fn came(&self) -> Vec<(Duration, Delivery, u16)> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn accepted_bodies(&self) -> Vec<Value> {
        let came = self.came().into_iter().filter(|(_, _, status)| *status == 200);
        came.map(|(_, delivery, _)| serde_json::from_slice(&delivery.body).unwrap()).collect()
    }
}

impl Transport for Receiver {
    fn send(&self, delivery: Delivery) -> Sending<'_> {
        Box::pin(async move {
            sleep(self.takes).await;
            let at = self.begun.elapsed();
            let (status, retry_after) = (self.answer)(at);
            self.came.lock().unwrap_or_else(PoisonError::into_inner).push((at, delivery, status));
            match status {
                0 => Err(Failure::transient("connection refused".to_owned())),
                _ => judge(status, retry_after.map(Duration::from_secs)),
            }
        })
    }
}

fn options() -> Options {
    Options { interval: Duration::from_millis(500), token: None, secret: Secret::random().unwrap(), translate: None }
}

fn sender(receiver: &Arc<Receiver>, store: &Arc<dyn Store>) -> WebhookSender {
    WebhookSender::with(Arc::clone(receiver) as Arc<dyn Transport>, options(), Arc::clone(store))
}

/// A prediction with a webhook, as it is accepted.
fn record(id: &str, events: &[EventKind]) -> Record {
    let prediction = accepted(id, &json!({"prompt": "日本 🏔", "num_inference_steps": 3}));
    let webhook = Webhook {
        url: "http://receiver.example/".to_owned(),
        events: events.to_vec(),
        trace: Vec::new(),
        translated: false,
    };
    let (output_file_prefix, wanted, file, deadline, key, asker) = (None, Wanted::default(), None, None, None, None);
    let webhook = Some(webhook);
    Record { prediction, seq: 1, attempts: 0, webhook, output_file_prefix, wanted, file, deadline, key, asker }
}

/// A prediction that was accepted and claimed.
async fn claimed(record: Record, store: &Arc<dyn Store>) -> Arc<ActivePrediction> {
    let active = Arc::new(ActivePrediction::new(record, 0, tracing::Span::none()));
    store.accept(New::of(active.accepted().clone(), 1.0), Room::ANY).await.unwrap();
    let Claimed { claim, attempts, .. } = store.claim(Wants::any(1)).await.unwrap().remove(0);
    assert!(active.claim(claim, attempts));
    active
}

/// Ends a prediction as the service does: stored first, then published.
async fn end(active: &ActivePrediction, store: &Arc<dyn Store>) {
    let (claim, prediction) = active.finish(End::Failed("why".to_owned())).unwrap();
    store.finish(&claim, active.record_of(&prediction, None), Vec::new()).await.unwrap();
    active.publish_end(prediction);
}

async fn is_pending(store: &Arc<dyn Store>) -> bool {
    store.get("a").await.unwrap().unwrap().owed
}

async fn all_sent(sender: &WebhookSender) {
    sender.tasks.close();
    sender.tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_down_for_an_hour_accepts_the_end_once() {
    let down = |at: Duration| (if at < Duration::from_hours(1) { 0 } else { 200 }, None);
    let (receiver, store) = (Receiver::new(down), Arc::new(Memory::default()) as Arc<dyn Store>);
    let sender = sender(&receiver, &store);
    let active = claimed(record("a", &[EventKind::Completed]), &store).await;
    sender.follow(&active);
    end(&active, &store).await;
    let ended = active.snapshot();
    all_sent(&sender).await;
    let came = receiver.came();
    assert_eq!(receiver.accepted_bodies(), [serde_json::to_value(&ended).unwrap()]);
    assert!((12..20).contains(&came.len()), "{} attempts in the hour", came.len());
    assert!(receiver.begun.elapsed() < Duration::from_hours(3));
    let ids: HashSet<_> = came.iter().map(|(_, delivery, _)| delivery.headers["webhook-id"].clone()).collect();
    assert_eq!(ids.len(), 1, "the id stays");
    for (_, delivery, _) in &came {
        let text = |name: &str| delivery.headers[name].to_str().unwrap().to_owned();
        let timestamp = text("webhook-timestamp").parse().unwrap();
        assert_eq!(
            text("webhook-signature"),
            sender.options.secret.sign(&text("webhook-id"), timestamp, &delivery.body)
        );
    }
    assert!(!is_pending(&store).await);
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_between_changes_nothing_for_the_receiver() {
    let down = |at: Duration| (if at < Duration::from_hours(1) { 503 } else { 200 }, None);
    let (receiver, store) = (Receiver::new(down), Arc::new(Memory::default()) as Arc<dyn Store>);
    let first = sender(&receiver, &store);
    let active = claimed(record("a", &[EventKind::Completed]), &store).await;
    end(&active, &store).await;
    let ended = Arc::new(active.snapshot());
    let pending = Pending { id: "a".to_owned(), seq: 1, created_at: ended.created_at, prediction: Some(ended) };
    let webhook = active.webhook().cloned().unwrap();
    // The timeout ends what a process would still do, as its own end does.
    assert!(tokio::time::timeout(Duration::from_mins(30), first.send_end(&webhook, pending)).await.is_err());
    let before = receiver.came().len();
    let second = sender(&receiver, &store);
    assert!(is_pending(&store).await);
    second.resume(store.get("a").await.unwrap().unwrap().record);
    all_sent(&second).await;
    let came = receiver.came();
    assert!(came.len() > before && receiver.accepted_bodies().len() == 1, "{} before, {} in all", before, came.len());
    let ids: HashSet<_> = came.iter().map(|(_, delivery, _)| delivery.headers["webhook-id"].clone()).collect();
    assert_eq!(ids.len(), 1, "the id stays");
    assert!(!is_pending(&store).await);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_given_the_time_that_it_asks_for() {
    let busy = |at: Duration| if at < Duration::from_mins(9) { (429, Some(600)) } else { (200, None) };
    let (receiver, store) = (Receiver::new(busy), Arc::new(Memory::default()) as Arc<dyn Store>);
    let sender = sender(&receiver, &store);
    let active = claimed(record("a", &[EventKind::Completed]), &store).await;
    sender.follow(&active);
    end(&active, &store).await;
    all_sent(&sender).await;
    let times: Vec<u64> = receiver.came().iter().map(|(at, ..)| at.as_secs()).collect();
    assert_eq!(times, [0, 600]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_never_accepted_is_given_up() {
    for (status, attempts) in [(410, 1), (0, RETRIES.max_attempts as usize)] {
        let (receiver, store) = (Receiver::new(move |_| (status, None)), Arc::new(Memory::default()) as Arc<dyn Store>);
        let sender = sender(&receiver, &store);
        let active = claimed(record("a", &[EventKind::Completed]), &store).await;
        sender.follow(&active);
        end(&active, &store).await;
        all_sent(&sender).await;
        assert_eq!(receiver.came().len(), attempts);
        assert!(receiver.begun.elapsed() < Duration::from_hours(48));
        assert!(!is_pending(&store).await, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_is_not_sent() {
    let (receiver, store) = (Receiver::new(|_| (0, None)), Arc::new(Memory::default()) as Arc<dyn Store>);
    let sender = sender(&receiver, &store);
    let active = claimed(record("a", &[EventKind::Completed]), &store).await;
    sender.follow(&active);
    end(&active, &store).await;
    sleep(Duration::from_mins(1)).await;
    assert!(store.delete("a").await.unwrap());
    all_sent(&sender).await;
    assert!(receiver.begun.elapsed() < Duration::from_mins(3));
}

#[tokio::test(start_paused = true)]
async fn order_and_throttle_hold_for_a_slow_receiver() {
    let (receiver, store) =
        (Receiver::slow(Duration::from_secs(2), |_| (200, None)), Arc::new(Memory::default()) as Arc<dyn Store>);
    let sender = sender(&receiver, &store);
    let mut record = record("a", &EventKind::ALL);
    record.prediction.input.num_inference_steps = 100;
    let active = claimed(record, &store).await;
    sender.follow(&active);
    active.begin(0, "1".to_owned(), Time::now(), None).unwrap();
    for step in 1..=100 {
        active.progress(step, 100, f64::from(step), f64::from(step) / 100.0);
        sleep(Duration::from_millis(100)).await;
    }
    end(&active, &store).await;
    all_sent(&sender).await;
    let sent = receiver.accepted_bodies();
    let steps: Vec<usize> = sent.iter().map(|one| one["logs"].as_str().unwrap().lines().count()).collect();
    assert!(steps.is_sorted() && steps[0] == 0, "{steps:?}");
    assert_eq!(sent.last().unwrap()["status"], "failed");
    assert!(sent[..sent.len() - 1].iter().all(|one| one["status"] == "processing"));
    assert!((5..8).contains(&sent.len()), "{steps:?}");
}

/// Whoever waited for it here would wait for ever, and it would never be let go.
#[tokio::test(start_paused = true)]
async fn what_goes_on_elsewhere_or_was_never_accepted_is_let_go() {
    let (receiver, store) = (Receiver::new(|_| (200, None)), Arc::new(Memory::default()) as Arc<dyn Store>);
    let sender = sender(&receiver, &store);
    let waits =
        Arc::new(ActivePrediction::resume(record("waits", &EventKind::ALL), true, Feed::new(0), tracing::Span::none()));
    let refused = Arc::new(ActivePrediction::new(record("refused", &EventKind::ALL), 0, tracing::Span::none()));
    for active in [&waits, &refused] {
        sender.follow(active);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sender.tasks.len(), 2, "they may yet end here");
    assert!(waits.leave() && refused.refuse("there is no room"));
    sender.flush(Duration::from_hours(1)).await;
    assert!(receiver.begun.elapsed() < Duration::from_mins(1));
    assert_eq!((sender.tasks.len(), Arc::strong_count(&waits), Arc::strong_count(&refused)), (0, 1, 1));
    assert!(receiver.came().is_empty());
}

/// A receiver of which one host never answers.
struct Deaf(Arc<Receiver>);

impl Transport for Deaf {
    fn send(&self, delivery: Delivery) -> Sending<'_> {
        if delivery.url.contains("silent") { Box::pin(std::future::pending()) } else { self.0.send(delivery) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_answers_does_not_keep_the_others_waiting() {
    let (receiver, store) = (Receiver::new(|_| (200, None)), Arc::new(Memory::default()) as Arc<dyn Store>);
    let sender = WebhookSender::with(Arc::new(Deaf(Arc::clone(&receiver))), options(), Arc::clone(&store));
    let silent = (0..2 * turns::MAX_AT_ONCE).map(|n| (format!("silent {n}"), "http://silent.example/"));
    for (id, url) in silent.chain([("a".to_owned(), "http://receiver.example/")]) {
        let mut record = record(&id, &[EventKind::Completed]);
        if let Some(webhook) = &mut record.webhook {
            url.clone_into(&mut webhook.url);
        }
        let active = claimed(record, &store).await;
        end(&active, &store).await;
        // As after a restart.
        sender.resume(store.get(&id).await.unwrap().unwrap().record);
    }
    let delivered = async {
        while is_pending(&store).await {
            sleep(Duration::from_secs(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_hours(1), delivered).await.is_ok(), "it waits for the silent one");
    assert_eq!(receiver.came().len(), 1);
}
