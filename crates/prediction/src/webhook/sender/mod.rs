//! What is sent when, and how often it is tried.
//!
//! One task follows one prediction, so its events arrive in order. Only `completed` is tried again; it is pending in
//! the store until a receiver accepts or refuses it, and keeps its `webhook-id` however often it is sent.

mod turns;

use std::sync::Arc;
use std::time::Duration;

use http_client::{Retries, RetryPolicy};
use metrics::counter;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use ring::digest;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use super::signature::Secret;
use super::subscription::{EventKind, Translate, Webhook};
use super::transport::{Delivery, Failure, Http, Transport};
use crate::active::ActivePrediction;
use crate::feed::{Event, Item};
use crate::lifecycle::Phase;
use crate::outgoing::Gate;
use crate::redacted::Redacted;
use crate::shown::shown;
use crate::store::{Record, Store, StoreError};
use crate::time::Time;
use crate::wire::Prediction;
use turns::Turns;

/// How often an end is sent: for about a day.
const RETRIES: RetryPolicy = RetryPolicy {
    max_attempts: 40,
    first_wait: Duration::from_millis(200),
    max_wait: Duration::from_hours(1),
    jitter: 0.25,
    // `transport` shortens what a receiver asks for.
    max_retry_after: Duration::MAX,
};
/// Attempts, within seconds, for which an end is held in memory; for later ones it is read from the store again.
const HELD: u32 = 6;
/// The wait after a delivery could not be marked; doubles up to `MAX_MARK_WAIT`.
const FIRST_MARK_WAIT: Duration = Duration::from_millis(200);
/// The longest wait.
const MAX_MARK_WAIT: Duration = Duration::from_secs(30);

/// How webhooks are sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shortest time between two `logs` of a prediction.
    pub interval: Duration,
    /// Token that receivers are shown as `Authorization: Bearer`.
    pub token: Option<Redacted>,
    /// What webhooks are signed with.
    pub secret: Secret,
    /// Writes the bodies for clients of another API.
    pub translate: Option<Arc<dyn Translate>>,
}

/// Sends the webhooks of all predictions.
#[derive(Clone)]
pub(crate) struct WebhookSender {
    transport: Arc<dyn Transport>,
    options: Options,
    store: Arc<dyn Store>,
    /// For ends that are not held in memory.
    turns: Arc<Turns>,
    tasks: TaskTracker,
}

/// The end of a prediction whose webhook is pending.
struct Pending {
    id: String,
    seq: u64,
    created_at: Time,
    /// The end itself, as long as it is held in memory.
    prediction: Option<Arc<Prediction>>,
}

impl WebhookSender {
    pub(crate) fn new(options: Options, gate: Gate, store: Arc<dyn Store>) -> Result<Self, reqwest::Error> {
        Ok(Self::with(Arc::new(Http::new(gate)?), options, store))
    }

    fn with(transport: Arc<dyn Transport>, options: Options, store: Arc<dyn Store>) -> Self {
        Self { transport, options, store, turns: Arc::default(), tasks: TaskTracker::new() }
    }

    /// Follows a prediction to its end, if it has a webhook.
    pub(crate) fn follow(&self, active: &Arc<ActivePrediction>) {
        let Some(webhook) = active.webhook().cloned() else { return };
        let sender = self.clone();
        let active = Arc::clone(active);
        self.tasks.spawn(async move { sender.send_events(active, &webhook).await });
    }

    /// Sends an end whose webhook an earlier process left pending.
    pub(crate) fn resume(&self, record: Record) {
        let Record { prediction, seq, webhook: Some(webhook), .. } = record else { return };
        let sender = self.clone();
        let pending = Pending { created_at: prediction.created_at, id: prediction.id, seq, prediction: None };
        self.tasks.spawn(async move { sender.send_end(&webhook, pending).await });
    }

    /// Waits until nothing is being sent, or until the time is over; what is pending then stays in the store.
    pub(crate) async fn flush(&self, within: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(within, self.tasks.wait()).await;
    }

    /// Sends what happens to a prediction, until it has ended or is not this node's to tell of any more.
    async fn send_events(&self, active: Arc<ActivePrediction>, webhook: &Webhook) {
        let mut reader = active.feed.reader(0);
        let mut last: Option<Instant> = None;
        let mut gathered = false;
        loop {
            let due = last.map_or_else(Instant::now, |last| last + self.options.interval);
            let item = tokio::select! {
                biased;
                item = reader.next() => item,
                // Without an event: nothing more will come.
                _ = active.until(|phase| matches!(phase, Phase::Elsewhere | Phase::Refused(_))) => return,
                () = sleep_until(due), if gathered => {
                    gathered = false;
                    last = Some(Instant::now());
                    self.send_once(webhook, &active.snapshot()).await;
                    continue;
                }
            };
            match item {
                None => return,
                Some(Err(_missed)) => gathered |= webhook.wants(EventKind::Logs),
                Some(Ok(Item { event, .. })) => match event {
                    Event::Start if webhook.wants(EventKind::Start) => {
                        last = Some(Instant::now());
                        self.send_once(webhook, &active.snapshot().at_start()).await;
                    }
                    Event::Log(_) => gathered |= webhook.wants(EventKind::Logs),
                    Event::Output(_, 0) if webhook.wants(EventKind::Output) => {
                        gathered = false;
                        last = Some(Instant::now());
                        self.send_once(webhook, &active.snapshot().at_output()).await;
                    }
                    Event::Completed(prediction) if webhook.wants(EventKind::Completed) => {
                        let (id, seq, created_at) = (active.id().to_owned(), active.seq(), prediction.created_at);
                        // What follows may take a day, and the prediction is not held that long.
                        drop((reader, active));
                        let pending = Pending { id, seq, created_at, prediction: Some(prediction) };
                        return self.send_end(webhook, pending).await;
                    }
                    _ => {}
                },
            }
        }
    }

    /// Sends an event that may be lost.
    async fn send_once(&self, webhook: &Webhook, prediction: &Prediction) {
        let message = format!("msg_{}", uuid::Uuid::new_v4().simple());
        match self.post(webhook, &message, prediction).await {
            Ok(()) => count("delivered"),
            Err(failure) => {
                count(if failure.transient { "abandoned" } else { "refused" });
                tracing::warn!(prediction_id = ?prediction.id, why = %shown(&failure.error), "a webhook was not delivered");
            }
        }
    }

    /// Sends an end until the receiver accepts or refuses it.
    async fn send_end(&self, webhook: &Webhook, mut pending: Pending) {
        let message = pending.message();
        let mut retries = Retries::new(RETRIES);
        loop {
            let outcome = match self.attempt(webhook, &message, &pending).await {
                Ok(Some(outcome)) => outcome,
                Ok(None) => {
                    tracing::warn!(
                        prediction_id = ?pending.id, "a prediction was removed before its webhook was delivered"
                    );
                    return count("abandoned");
                }
                Err(error) => Err(Failure::transient(error.to_string())),
            };
            let Err(failure) = outcome else {
                count("delivered");
                break;
            };
            let attempt = retries.failed();
            let wait = retries.next_wait(&failure);
            tracing::warn!(
                prediction_id = ?pending.id,
                attempt,
                why = %shown(&failure.error),
                again = wait.is_some(),
                "a webhook was not delivered"
            );
            let Some(wait) = wait else {
                count(if failure.transient { "abandoned" } else { "refused" });
                break;
            };
            count("retried");
            pending.prediction.take_if(|_| retries.failed() >= HELD);
            sleep(wait).await;
        }
        self.mark_delivered(&pending).await;
    }

    /// Marks a webhook as delivered, and tries again until that is stored: otherwise it would be sent once more.
    async fn mark_delivered(&self, pending: &Pending) {
        let mut wait = FIRST_MARK_WAIT;
        loop {
            match self.store.mark_delivered(&pending.id, pending.seq).await {
                Ok(()) | Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::error!(
                        prediction_id = ?pending.id, %error, "the store could not mark a webhook as delivered; trying again"
                    );
                }
            }
            sleep(wait).await;
            wait = (2 * wait).min(MAX_MARK_WAIT);
        }
    }

    /// Sends an end once; `None` if the prediction was removed.
    async fn attempt(
        &self,
        webhook: &Webhook,
        message: &str,
        pending: &Pending,
    ) -> Result<Option<Result<(), Failure>>, StoreError> {
        if let Some(prediction) = &pending.prediction {
            return Ok(Some(self.post(webhook, message, prediction).await));
        }
        let _turn = self.turns.take(&webhook.url).await;
        let stored = self.store.get(&pending.id).await?.filter(|stored| stored.record.seq == pending.seq);
        let Some(stored) = stored else { return Ok(None) };
        Ok(Some(self.post(webhook, message, &stored.into_prediction()).await))
    }

    async fn post(&self, webhook: &Webhook, message: &str, prediction: &Prediction) -> Result<(), Failure> {
        let body = match &self.options.translate {
            Some(translate) if webhook.translated => translate.translate(prediction),
            _ => serde_json::to_vec(prediction),
        };
        let body = body.map_err(|error| Failure::permanent(error.to_string()))?;
        let headers = self.headers(webhook, message, &body);
        self.transport.send(Delivery { url: webhook.url.clone(), headers, body }).await
    }

    fn headers(&self, webhook: &Webhook, message: &str, body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(http_client::USER_AGENT));
        let mut add = |name: &str, value: &str, secret: bool| {
            if let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                value.set_sensitive(secret);
                headers.insert(name, value);
            }
        };
        for (name, value) in &webhook.trace {
            add(name, value, false);
        }
        let timestamp = Time::now().micros() / 1_000_000;
        add("webhook-id", message, false);
        add("webhook-timestamp", &timestamp.to_string(), false);
        add("webhook-signature", &self.options.secret.sign(message, timestamp, body), false);
        if let Some(token) = &self.options.token {
            add(AUTHORIZATION.as_str(), &format!("Bearer {}", token.reveal()), true);
        }
        headers
    }
}

impl Pending {
    /// The `webhook-id`: the same for every attempt, in this process and the next.
    fn message(&self) -> String {
        let named = format!("{}\n{}\n{}\ncompleted", self.seq, self.created_at.micros(), self.id);
        let digest = digest::digest(&digest::SHA256, named.as_bytes());
        format!("msg_{}", hex::encode(&digest.as_ref()[..16]))
    }
}

/// Counts what came of an attempt.
fn count(result: &'static str) {
    counter!("syncdiffusion_webhooks_total", "result" => result).increment(1);
}

#[cfg(test)]
mod tests;
