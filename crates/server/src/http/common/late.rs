//! Answers that take longer than clients wait for the first byte: after a while the response begins, and white space
//! before the JSON keeps it alive.
//!
//! What always holds: a failure that comes after the response has begun ends the connection, so that nobody takes it
//! for a success.

use std::io;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::Value;
use tokio::time::timeout;

/// When the response begins at the latest: Node gives up after 300 seconds without headers.
const PATIENCE: Duration = Duration::from_mins(4);
/// How often white space is sent from then on.
const INTERVAL: Duration = Duration::from_secs(15);

/// Answers with what `answer` becomes, or with the response that says why there is none.
pub(crate) async fn answer(answer: impl Future<Output = Result<Value, Response>> + Send + 'static) -> Response {
    let mut answer = Box::pin(answer);
    match timeout(PATIENCE, &mut answer).await {
        Ok(Ok(json)) => return Json(json).into_response(),
        Ok(Err(refusal)) => return refusal,
        Err(_) => {}
    }
    let chunks = stream::unfold((Some(answer), Duration::ZERO), |(answer, wait)| async move {
        let mut answer = answer?;
        let (chunk, next) = match timeout(wait, &mut answer).await {
            Ok(Ok(json)) => (Ok(Bytes::from(json.to_string())), None),
            Ok(Err(refusal)) => {
                let status = refusal.status().as_u16();
                tracing::warn!(status, "an answer that had begun cannot be given; the connection ends");
                (Err(io::Error::other("the answer failed after it had begun")), None)
            }
            Err(_) => (Ok(Bytes::from_static(b" ")), Some(answer)),
        };
        Some((chunk, (next, INTERVAL)))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::StatusCode;
    use serde_json::json;
    use tokio::time::{Instant, sleep};

    use super::*;

    async fn after(seconds: u64, end: Result<Value, StatusCode>) -> (u16, u64, Option<String>) {
        let begun = Instant::now();
        let response = answer(async move {
            sleep(Duration::from_secs(seconds)).await;
            end.map_err(axum::response::IntoResponse::into_response)
        })
        .await;
        let (status, first) = (response.status().as_u16(), begun.elapsed().as_secs());
        let body = to_bytes(response.into_body(), usize::MAX).await.ok();
        (status, first, body.map(|body| String::from_utf8(body.to_vec()).unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn white_space_keeps_a_late_answer_alive() {
        let text = Some("{\"a\":1}".to_owned());
        assert_eq!(after(200, Ok(json!({"a": 1}))).await, (200, 200, text));
        let (status, first, body) = after(600, Ok(json!({"a": 1}))).await;
        assert_eq!((status, first), (200, 240));
        let body = body.unwrap();
        assert!(body.len() > 20 && body.trim_start() == "{\"a\":1}", "{body:?}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"a": 1}));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_failure_is_no_success() {
        let failed = Err(StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(after(200, failed.clone()).await.0, 500);
        assert_eq!(after(600, failed).await, (200, 240, None), "the body is cut off");
    }
}
