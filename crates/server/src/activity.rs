//! What happens on a connection, so that one on which nothing happens can be ended.
//!
//! hyper has a deadline for headers of HTTP/1 only, and the same one for idle connections; for HTTP/2 it has none. So
//! the connection's bytes, requests and bodies are watched here, for both protocols alike.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tower::Service;

/// The shortest time between two looks at a connection.
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// How many may be open at once.
    pub(crate) connections: usize,
    /// How long a header may take, and a new connection may be silent.
    pub(crate) header: Duration,
    /// How long a connection may be idle between requests.
    pub(crate) idle: Duration,
    /// How long a response may be left unread.
    pub(crate) write: Duration,
}

/// What happens on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    is_http2: bool,
    /// Requests that are being answered.
    in_flight: usize,
    /// Responses of which the client has to take something before there can be more.
    unread: usize,
    /// When the client took something last, or a response began.
    taken: Instant,
    /// Since when no request is being answered.
    quiet: Instant,
    /// When the header began that is being read; the connection's begin counts for the first.
    header: Option<Instant>,
    /// When bytes were written last.
    written: Instant,
}

impl Activity {
    pub(crate) fn new(is_http2: bool) -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State {
            is_http2,
            in_flight: 0,
            unread: 0,
            taken: now,
            quiet: now,
            header: Some(now),
            written: now,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection is to be ended: it is idle, its header takes too long, or nothing of its responses is
    /// taken.
    pub(crate) async fn until_over(&self, limits: ConnectionLimits) {
        loop {
            let end = self.state().end(limits);
            let now = Instant::now();
            if end.is_some_and(|end| end <= now) {
                return;
            }
            // Whatever happens meanwhile gives the connection at least the shortest of the limits.
            let shortest = limits.header.min(limits.idle).min(limits.write);
            let wait = end.map_or(shortest, |end| shortest.min(end - now));
            tokio::time::sleep(wait.max(MIN_PAUSE)).await;
        }
    }

    /// Whether the client takes nothing of its responses.
    pub(crate) fn is_stuck(&self, limits: ConnectionLimits) -> bool {
        let state = self.state();
        state.unread > 0 && state.taken.elapsed() >= limits.write
    }
}

impl State {
    /// When the connection is over if nothing happens until then.
    fn end(&self, limits: ConnectionLimits) -> Option<Instant> {
        if self.in_flight > 0 {
            // For HTTP/1 the deadline for writing does the same.
            return (self.is_http2 && self.unread > 0).then(|| self.taken + limits.write);
        }
        // The bytes of a response of HTTP/1 may still be on their way when its body has been handed over.
        let idle = if self.is_http2 { self.quiet } else { self.quiet.max(self.written) } + limits.idle;
        Some(self.header.map_or(idle, |begun| begun + limits.header))
    }

    fn begin(&mut self) {
        self.in_flight += 1;
        self.header = None;
    }

    fn finish(&mut self) {
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.quiet = Instant::now();
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
struct InFlight {
    activity: Activity,
    /// Whether the client has to take something.
    unread: bool,
}

impl InFlight {
    fn new(activity: &Activity) -> Self {
        activity.state().begin();
        Self { activity: activity.clone(), unread: false }
    }

    fn set_unread(&mut self, unread: bool) {
        let mut state = self.activity.state();
        match (self.unread, unread) {
            (false, true) => state.unread += 1,
            (true, false) => state.unread -= 1,
            _ => {}
        }
        state.taken = Instant::now();
        drop(state);
        self.unread = unread;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.set_unread(false);
        self.activity.state().finish();
    }
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub(crate) struct Tracked<S> {
    inner: S,
    activity: Activity,
}

impl<S> Tracked<S> {
    pub(crate) fn new(inner: S, activity: &Activity) -> Self {
        Self { inner, activity: activity.clone() }
    }
}

impl<R, S> Service<R> for Tracked<S>
where
    S: Service<R, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<TrackedBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let mut request_in_flight = InFlight::new(&self.activity);
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            request_in_flight.set_unread(true);
            Ok(response.map(|body| TrackedBody { body, in_flight: request_in_flight }))
        })
    }
}

/// The body of a response. It is asked for more only when the client can take more.
#[derive(Debug)]
pub(crate) struct TrackedBody {
    body: Body,
    in_flight: InFlight,
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.in_flight.set_unread(false);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.in_flight.set_unread(frame.is_some());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads, and notes when a header begins.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    activity: Activity,
}

impl<R> Reader<R> {
    pub(crate) fn new(inner: R, activity: &Activity) -> Self {
        Self { inner, activity: activity.clone() }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Reader<R> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(context, to));
        let mut state = self.activity.state();
        // Between requests of HTTP/2 there are frames other than headers.
        if to.filled().len() > before && state.in_flight == 0 && !state.is_http2 {
            state.header.get_or_insert_with(Instant::now);
        }
        drop(state);
        Poll::Ready(read)
    }
}

/// Writes, and notes when.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    inner: W,
    activity: Activity,
}

impl<W> Writer<W> {
    pub(crate) fn new(inner: W, activity: &Activity) -> Self {
        Self { inner, activity: activity.clone() }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Writer<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, from));
        self.activity.state().written = Instant::now();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, from));
        self.activity.state().written = Instant::now();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections: 1,
        header: Duration::from_secs(2),
        idle: Duration::from_secs(75),
        write: Duration::from_mins(1),
    };

    async fn lasts(activity: &Activity) -> Duration {
        let begun = Instant::now();
        let limit = Duration::from_hours(1);
        tokio::time::timeout(limit, activity.until_over(LIMITS)).await.map_or(limit, |()| begun.elapsed())
    }

    fn near(duration: Duration, seconds: u64) -> bool {
        (seconds..=seconds + 1).contains(&duration.as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_silent_idle_or_unread_ends() {
        for is_http2 in [false, true] {
            let activity = Activity::new(is_http2);
            assert!(near(lasts(&activity).await, 2), "nothing was asked for");
            let mut request = InFlight::new(&activity);
            assert!(lasts(&activity).await > Duration::from_mins(50), "a response may take long to make");
            request.set_unread(true);
            assert_eq!(near(lasts(&activity).await, 60), is_http2, "nothing of it is taken");
            request.set_unread(false);
            assert!(lasts(&activity).await > Duration::from_mins(50), "a stream that has nothing new");
            drop(request);
            assert!(near(lasts(&activity).await, 75), "idle");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_has_begun_has_less_time_than_an_idle_connection() {
        let activity = Activity::new(false);
        drop(InFlight::new(&activity));
        let mut reader = Reader::new(&b"GET /"[..], &activity);
        tokio::io::AsyncReadExt::read_u8(&mut reader).await.unwrap();
        assert!(near(lasts(&activity).await, 2));
    }
}
