//! A server that receives webhooks and pictures.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use serde_json::Value;
use tokio::net::TcpListener;

/// A request that was received.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as JSON; null if it is something else.
    pub json: Value,
    /// Its body, byte for byte.
    pub body: Bytes,
}

/// A receiver that keeps every request.
#[derive(Debug)]
pub struct Receiver {
    /// Its address.
    pub url: String,
    inbox: Inbox,
}

/// The requests so far, and the statuses of the next responses; 200 when none are left.
#[derive(Clone, Debug, Default)]
struct Inbox {
    sent: Arc<Mutex<Vec<Sent>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Receiver {
    /// Starts a receiver that answers the first requests with these statuses, and later ones with 200.
    pub async fn start(answers: &[u16]) -> Self {
        let inbox = Inbox::default();
        inbox.answers.lock().unwrap_or_else(PoisonError::into_inner).extend(answers.iter().rev());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(take).with_state(inbox.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, inbox }
    }

    /// All requests so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.inbox.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the requests are as wanted.
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
    let sent = Sent { path: uri.path().to_owned(), headers, json, body };
    inbox.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
    let status = inbox.answers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or(200);
    // S3 stores respond with an ETag.
    (StatusCode::from_u16(status).unwrap_or_default(), [("etag", "\"1\"")])
}
