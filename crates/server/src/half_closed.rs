//! Clients of HTTP/1 that end their side of a connection, wait for the response, and read it (`nc -N`).
//!
//! TCP does not tell them from clients that have left. So hyper, which takes every end for the latter, is not told of
//! one while a request is being answered. Such a client is sent `100 Continue`, which every client of HTTP/1.1 skips:
//! if it has left, its machine answers with a reset. Once a response has begun, its own bytes have the same effect.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, Sleep};

use crate::activity::Activity;

/// What tells a client that waits from one that has left.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How long a client may be silent after its end before it is asked. Most responses are ready by then.
const PAUSE: Duration = Duration::from_millis(100);
/// The first wait for the answer of its machine; doubles up to `MAX_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// What can be done on a connection besides reading.
pub(crate) trait Connection {
    /// Sends bytes, all at once or none.
    fn send(&self, bytes: &[u8]) -> io::Result<()>;
    /// Fails if the client has left.
    fn check(&self) -> io::Result<()>;
}

impl Connection for OwnedReadHalf {
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self.as_ref().try_write(bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn check(&self) -> io::Result<()> {
        self.as_ref().take_error()?.map_or(Ok(()), Err)
    }
}

/// Reads what a client sends, and notes when a header begins. The end is read when nothing is being answered any more.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    activity: Activity,
    ended: Option<Ended>,
    /// The end has been seen, and a request that came just before it may not have begun.
    has_waited: bool,
}

/// A client that has ended its side.
#[derive(Debug)]
struct Ended {
    next: Pin<Box<Sleep>>,
    wait: Duration,
    is_asked: bool,
}

impl<R> Reader<R> {
    pub(crate) fn new(inner: R, activity: &Activity) -> Self {
        Self { inner, activity: activity.clone(), ended: None, has_waited: false }
    }
}

impl<R: AsyncRead + Connection + Unpin> AsyncRead for Reader<R> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, activity, ended, has_waited } = &mut *self;
        if ended.is_none() {
            let before = to.filled().len();
            ready!(Pin::new(&mut *inner).poll_read(context, to))?;
            if to.filled().len() > before {
                activity.received();
                return Poll::Ready(Ok(()));
            }
            if to.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if !activity.ended() {
                if *has_waited {
                    return Poll::Ready(Ok(()));
                }
                // hyper reads on before it begins to answer what it has read.
                *has_waited = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let ended = ended.get_or_insert_with(|| Ended {
            next: Box::pin(tokio::time::sleep(PAUSE)),
            wait: FIRST_WAIT,
            is_asked: false,
        });
        loop {
            if !activity.is_answering(context) {
                return Poll::Ready(Ok(()));
            }
            ready!(ended.next.as_mut().poll(context));
            inner.check()?;
            if !ended.is_asked && activity.may_be_asked() {
                inner.send(CONTINUE)?;
                (ended.is_asked, ended.wait) = (true, FIRST_WAIT);
            }
            ended.next.as_mut().reset(Instant::now() + ended.wait);
            ended.wait = (2 * ended.wait).min(MAX_WAIT);
        }
    }
}

/// The body of a request. It fails if the client ends its side before it is complete.
#[derive(Debug)]
pub(crate) struct RequestBody<B> {
    inner: B,
    activity: Activity,
}

impl<B> RequestBody<B> {
    pub(crate) fn new(inner: B, activity: &Activity) -> Self {
        Self { inner, activity: activity.clone() }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending if self.activity.has_ended(context) => {
                let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the body did");
                Poll::Ready(Some(Err(cut.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use axum::http::Version;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::activity::InFlight;

    /// A client that sends something and ends its side.
    #[derive(Default)]
    struct Client<'a> {
        sends: &'a [u8],
        has_left: Cell<bool>,
        received: RefCell<Vec<u8>>,
    }

    impl AsyncRead for Client<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            to: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.sends).poll_read(context, to)
        }
    }

    impl Connection for Client<'_> {
        fn send(&self, bytes: &[u8]) -> io::Result<()> {
            self.received.borrow_mut().extend_from_slice(bytes);
            Ok(())
        }

        fn check(&self) -> io::Result<()> {
            let knows = self.has_left.get() && !self.received.borrow().is_empty();
            if knows { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_client_is_read_when_it_was_answered() {
        for (version, asks) in [(Version::HTTP_11, CONTINUE), (Version::HTTP_10, b"")] {
            let activity = Activity::new(false);
            let mut reader = Reader::new(Client { sends: b"GET", ..Client::default() }, &activity);
            let mut bytes = [0; 9];
            assert_eq!(reader.read(&mut bytes).await.unwrap(), 3);
            let request = InFlight::new(&activity, version);
            let soon = tokio::time::timeout(Duration::from_hours(1), reader.read(&mut bytes)).await;
            assert!(soon.is_err(), "it waits for its response");
            assert_eq!(*reader.inner.received.borrow(), asks);
            drop(request);
            assert_eq!(reader.read(&mut bytes).await.unwrap(), 0);
        }
        let mut reader = Reader::new(Client::default(), &Activity::new(false));
        assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0, "nothing is being answered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_left_is_found_out() {
        let activity = Activity::new(false);
        let mut reader = Reader::new(Client::default(), &activity);
        reader.inner.has_left.set(true);
        let _request = InFlight::new(&activity, Version::HTTP_11);
        let begun = Instant::now();
        assert_eq!(reader.read(&mut [0; 9]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(begun.elapsed() < 2 * PAUSE);
    }
}
