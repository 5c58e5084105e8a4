//! Telling a client what happens, as Cog does: the events start, output, logs and completed, each a POST of the whole prediction.
//!
//! One task follows one prediction, so its events arrive in order. `logs` are sent at most once an interval, with what has gathered
//! sent when the interval ends. Only `completed` is retried; it is owed in the store until a receiver has taken it or has refused
//! it for good.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::feed::{Event, Item};
use crate::live::Live;
use crate::store::Store;
use crate::wire::Prediction;

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The first wait between two attempts; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// Attempts before a webhook is given up: about a day.
const ATTEMPTS: u32 = 40;

/// Whom to tell what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where to POST.
    pub url: String,
    /// Which events.
    pub events: Vec<Kind>,
    /// `traceparent` and `tracestate` of the request, passed on.
    pub trace: Vec<(String, String)>,
}

/// The events of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A worker began.
    Start,
    /// There is a picture.
    Output,
    /// The logs grew.
    Logs,
    /// It is over.
    Completed,
}

impl Kind {
    /// All of them: what is sent when no filter is given.
    pub const ALL: [Self; 4] = [Self::Start, Self::Output, Self::Logs, Self::Completed];
}

impl Webhook {
    /// A webhook to a URL, which must be `http` or `https`.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str, events: Vec<Kind>, trace: Vec<(String, String)>) -> Result<Self, String> {
        check_url(url)?;
        Ok(Self { url: url.to_owned(), events, trace })
    }

    /// Whether an event is wanted.
    pub fn wants(&self, kind: Kind) -> bool {
        self.events.contains(&kind)
    }
}

/// Checks a URL that the server is to send to.
///
/// # Errors
/// What is wrong with it, and what would do.
pub fn check_url(url: &str) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|error| format!("`{url}` is not a URL: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("`{url}` is neither `http` nor `https`"));
    }
    Ok(())
}

/// How webhooks are sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Least time between two `logs` of a prediction.
    pub interval: Duration,
    /// Token that receivers are shown.
    pub token: Option<String>,
}

/// Sends the webhooks of all predictions.
#[derive(Clone)]
pub(crate) struct Courier {
    client: Client,
    options: Options,
    store: Arc<dyn Store>,
    tasks: TaskTracker,
}

impl Courier {
    pub(crate) fn new(options: Options, store: Arc<dyn Store>) -> Result<Self, reqwest::Error> {
        let client = Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self { client, options, store, tasks: TaskTracker::new() })
    }

    /// Follows a prediction to its end, if it has a webhook.
    pub(crate) fn follow(&self, live: &Arc<Live>) {
        let Some(webhook) = live.webhook.clone() else { return };
        let courier = self.clone();
        let live = Arc::clone(live);
        self.tasks.spawn(async move { courier.deliver(&live, &webhook).await });
    }

    /// Sends an end that an earlier process owed.
    pub(crate) fn settle(&self, webhook: Webhook, prediction: Prediction, seq: u64) {
        let courier = self.clone();
        self.tasks.spawn(async move { courier.complete(&webhook, &prediction, seq).await });
    }

    /// Waits until nothing is being sent, or until the time is over; what is owed then stays in the store.
    pub(crate) async fn flush(&self, within: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(within, self.tasks.wait()).await;
    }

    async fn deliver(&self, live: &Live, webhook: &Webhook) {
        let mut reader = live.feed.reader(0);
        let mut last: Option<Instant> = None;
        let mut gathered = false;
        loop {
            let due = last.map_or_else(Instant::now, |last| last + self.options.interval);
            let item = tokio::select! {
                biased;
                item = reader.next() => item,
                () = sleep_until(due), if gathered => {
                    gathered = false;
                    last = Some(Instant::now());
                    self.once(webhook, &live.snapshot()).await;
                    continue;
                }
            };
            match item {
                None => return,
                Some(Err(_missed)) => gathered |= webhook.wants(Kind::Logs),
                Some(Ok(Item { event, .. })) => match event {
                    Event::Start if webhook.wants(Kind::Start) => {
                        last = Some(Instant::now());
                        self.once(webhook, &live.snapshot().at_start()).await;
                    }
                    Event::Log(_) => gathered |= webhook.wants(Kind::Logs),
                    Event::Output(_) if webhook.wants(Kind::Output) => {
                        gathered = false;
                        last = Some(Instant::now());
                        self.once(webhook, &live.snapshot().at_output()).await;
                    }
                    Event::Completed(prediction) if webhook.wants(Kind::Completed) => {
                        self.complete(webhook, &prediction, live.seq).await;
                        return;
                    }
                    _ => {}
                },
            }
        }
    }

    /// Sends an event that may be lost.
    async fn once(&self, webhook: &Webhook, prediction: &Prediction) {
        if let Err(why) = self.post(webhook, prediction).await {
            tracing::warn!(prediction_id = %prediction.id, %why, "a webhook was not delivered");
        }
    }

    /// Sends an end until it is taken or refused for good.
    async fn complete(&self, webhook: &Webhook, prediction: &Prediction, seq: u64) {
        for attempt in 0..ATTEMPTS {
            match self.post(webhook, prediction).await {
                Ok(()) => break,
                Err(why) => {
                    tracing::warn!(prediction_id = %prediction.id, attempt, %why, "a webhook was not delivered");
                    if !why.again {
                        break;
                    }
                    sleep(wait(attempt).max(why.after.unwrap_or_default())).await;
                }
            }
        }
        if let Err(error) = self.store.settle(&prediction.id, seq).await {
            tracing::error!(prediction_id = %prediction.id, %error, "a delivered webhook could not be noted");
        }
    }

    async fn post(&self, webhook: &Webhook, prediction: &Prediction) -> Result<(), Undelivered> {
        let body = serde_json::to_vec(prediction).map_err(|error| Undelivered {
            again: false,
            after: None,
            why: error.to_string(),
        })?;
        let request = self.client.post(&webhook.url).headers(self.headers(webhook)).body(body);
        match request.send().await {
            Err(error) => Err(Undelivered { again: true, after: None, why: error.without_url().to_string() }),
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let status = response.status();
                let again = matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504);
                Err(Undelivered { again, after: retry_after(status, response.headers()), why: status.to_string() })
            }
        }
    }

    fn headers(&self, webhook: &Webhook) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("syncdiffusion/", env!("CARGO_PKG_VERSION"))));
        let token = self.options.token.as_ref().map(|token| ("authorization", format!("Bearer {token}")));
        let trace = webhook.trace.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in trace.chain(token) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// Why an attempt failed and whether another is worth it.
#[derive(Debug)]
struct Undelivered {
    again: bool,
    after: Option<Duration>,
    why: String,
}

impl std::fmt::Display for Undelivered {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.why)
    }
}

/// What a receiver asks to wait, in seconds, up to the longest wait.
fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = headers.get(RETRY_AFTER).filter(|_| busy)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// The wait after an attempt: doubling, with up to a quarter of jitter.
fn wait(attempt: u32) -> Duration {
    let base = FIRST_WAIT.saturating_mul(1 << attempt.min(20)).min(LONGEST_WAIT);
    let jitter = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
    base.mul_f64(1.0 + jitter / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_the_web_are_taken() {
        assert!(check_url("http://127.0.0.1:1/x").is_ok() && check_url("https://example.com").is_ok());
        assert!(check_url("not a url").unwrap_err().contains("`not a url` is not a URL"));
        assert!(check_url("ftp://example.com").is_err() && check_url("file:///etc/passwd").is_err());
    }

    #[test]
    fn waits_double_up_to_an_hour() {
        assert!((200..=250).contains(&wait(0).as_millis()));
        assert!((400..=500).contains(&wait(1).as_millis()));
        assert!((3600..=4500).contains(&wait(39).as_secs()));
    }
}
