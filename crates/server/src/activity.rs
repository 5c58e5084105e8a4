//! What happens on a connection, so that one on which nothing happens can be ended.
//!
//! hyper has a deadline for headers of HTTP/1 only, and the same one for idle connections; for HTTP/2 it has none. So
//! the connection's bytes, requests and bodies are watched here, for both protocols alike.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, Version};
use http_body::{Frame, SizeHint};
use tokio::io::AsyncWrite;
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
    /// Bytes wait until the client takes others.
    is_blocked: bool,
    /// What came last of a response is its header, or more.
    has_responded: bool,
    /// The client of the newest request knows informational responses.
    knows_1xx: bool,
    /// The client has ended its side of a connection of HTTP/1.
    has_ended: bool,
    /// Who wants to know of the end of its side, or of that of the request.
    waiting: Vec<Waker>,
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
            is_blocked: false,
            has_responded: false,
            knows_1xx: false,
            has_ended: false,
            waiting: Vec::new(),
        })))
    }

    /// Bytes came.
    pub(crate) fn received(&self) {
        let mut state = self.state();
        // Between requests of HTTP/2 there are frames other than headers.
        if state.in_flight == 0 && !state.is_http2 {
            state.header.get_or_insert_with(Instant::now);
        }
    }

    /// The client has ended its side; whether it may still wait for a response.
    pub(crate) fn ended(&self) -> bool {
        let mut state = self.state();
        state.has_ended = !state.is_http2;
        state.wake();
        state.has_ended && state.in_flight > 0
    }

    /// Whether the client has ended its side. If not, `context` is woken when it has.
    pub(crate) fn has_ended(&self, context: &Context<'_>) -> bool {
        let mut state = self.state();
        if !state.has_ended {
            state.wait(context);
        }
        state.has_ended
    }

    /// Whether a request is being answered. If so, `context` is woken when none is.
    pub(crate) fn is_answering(&self, context: &Context<'_>) -> bool {
        let mut state = self.state();
        if state.in_flight > 0 {
            state.wait(context);
        }
        state.in_flight > 0
    }

    /// Whether an informational response can be sent: nothing else is on its way, and the client knows it.
    pub(crate) fn may_be_asked(&self) -> bool {
        let state = self.state();
        state.in_flight == 1 && state.knows_1xx && !state.has_responded && !state.is_blocked
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

    fn begin(&mut self, version: Version) {
        self.in_flight += 1;
        self.header = None;
        self.has_responded = false;
        self.knows_1xx = version == Version::HTTP_11;
    }

    fn finish(&mut self) {
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.quiet = Instant::now();
            self.wake();
        }
    }

    /// Bytes were written, or wait.
    fn wrote(&mut self, written: bool) {
        self.is_blocked = !written;
        if written {
            self.written = Instant::now();
        }
    }

    fn wait(&mut self, context: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            self.waiting.push(context.waker().clone());
        }
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct InFlight {
    activity: Activity,
    /// Whether the client has to take something.
    unread: bool,
}

impl InFlight {
    pub(crate) fn new(activity: &Activity, version: Version) -> Self {
        activity.state().begin(version);
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

impl<B, S> Service<Request<B>> for Tracked<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<TrackedBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request_in_flight = InFlight::new(&self.activity, request.version());
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            request_in_flight.activity.state().has_responded = true;
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
        let written = Pin::new(&mut self.inner).poll_write(context, from);
        self.activity.state().wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, from);
        self.activity.state().wrote(written.is_ready());
        written
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
            let mut request = InFlight::new(&activity, Version::HTTP_11);
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
        drop(InFlight::new(&activity, Version::HTTP_11));
        activity.received();
        assert!(near(lasts(&activity).await, 2));
    }
}
