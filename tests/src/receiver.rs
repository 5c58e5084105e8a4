//! A server that webhooks and pictures are sent to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use serde_json::Value;
use tokio::net::TcpListener;

/// What was received.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When.
    pub at: Instant,
    /// On which path.
    pub path: String,
    /// With which headers.
    pub headers: HeaderMap,
    /// The body as JSON; null if it is none.
    pub json: Value,
    /// The body as it came.
    pub body: Bytes,
}

/// A receiver; it keeps everything.
#[derive(Debug)]
pub struct Receiver {
    /// Its address.
    pub url: String,
    inbox: Inbox,
}

/// What has come in, and the statuses to answer next with; 200 when there are no more.
#[derive(Clone, Debug, Default)]
struct Inbox {
    sent: Arc<Mutex<Vec<Sent>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Receiver {
    /// Starts a receiver that answers the first requests with these statuses, and 200 from then on.
    pub async fn start(answers: &[u16]) -> Self {
        let inbox = Inbox::default();
        inbox.answers.lock().unwrap_or_else(PoisonError::into_inner).extend(answers.iter().rev());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(take).with_state(inbox.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, inbox }
    }

    /// Everything so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.inbox.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so much has come in.
    pub async fn wait(&self, wanted: impl Fn(&[Sent]) -> bool) -> Vec<Sent> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let sent = self.sent();
            if wanted(&sent) {
                return sent;
            }
            assert!(Instant::now() < end, "only this was received: {sent:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn take(State(inbox): State<Inbox>, uri: Uri, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let json = serde_json::from_slice(&body).unwrap_or_default();
    let sent = Sent { at: Instant::now(), path: uri.path().to_owned(), headers, json, body };
    inbox.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
    let status = inbox.answers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or(200);
    // Stores that speak S3 name the state of what they took.
    (StatusCode::from_u16(status).unwrap_or_default(), [("etag", "\"1\"")])
}
