//! Responses that are sent before the body of their request was read.
//!
//! hyper closes such a connection, because what follows on it is the rest of the body. The header says so, or the
//! client would send its next request there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};

use super::room::SMALL;

/// What hyper reads by itself of a body that nobody wanted, at most.
const LITTLE: u64 = SMALL as u64;

/// Says that the connection ends, if something is left of a body that was begun, or much of one that nobody wanted.
pub(super) async fn close(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() || request.version() > Version::HTTP_11 {
        return next.run(request).await;
    }
    let left = Arc::new(Left { bytes: AtomicU64::new(left(request.body())), ..Left::default() });
    let watched = request.map(|body| Body::new(Watched { body, left: Arc::clone(&left) }));
    let mut response = next.run(watched).await;
    let is_begun = left.is_begun.load(Ordering::Relaxed);
    if left.bytes.load(Ordering::Relaxed) > if is_begun { 0 } else { LITTLE } {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The most bytes that a body may still have.
fn left(body: &Body) -> u64 {
    body.size_hint().upper().unwrap_or(u64::MAX)
}

/// What is left of a body.
#[derive(Debug, Default)]
struct Left {
    bytes: AtomicU64,
    is_begun: AtomicBool,
}

/// A body of which is known how much is left.
struct Watched {
    body: Body,
    left: Arc<Left>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.left.is_begun.store(true, Ordering::Relaxed);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let left = if frame.is_none() || self.body.is_end_stream() { 0 } else { left(&self.body) };
        self.left.bytes.store(left, Ordering::Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
