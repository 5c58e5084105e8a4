//! Connections: a limit on their number, deadlines for silent ones, and a graceful end.
//!
//! What always holds: a client that does not send its header in time loses its connection, whatever protocol it speaks,
//! and so does one that leaves its response unread, or asks for nothing more. Making a response has no deadline,
//! because pictures take minutes.
//!
//! Not `hyper_util::server::conn::auto`: that waits without a deadline for the first bytes, which decide on HTTP/2.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::gauge;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::activity::{Activity, ConnectionLimits, Tracked, Writer};
use crate::half_closed::{Reader, RequestBody};
use crate::http::Peer;

/// The first bytes of HTTP/2.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection is silent before it is looked whether the client's machine is still there.
const SILENCE: Duration = Duration::from_mins(1);
/// How often a client of HTTP/2 is pinged, and a silent machine.
const PING: Duration = Duration::from_secs(20);
/// Requests that a client of HTTP/2 may have under way on a connection.
const MAX_STREAMS: u32 = 32;
/// The most of a header that is held, for HTTP/1.
const MAX_HEADER: usize = 64 << 10;
/// Files that are reserved for other things than connections: the store, workers, webhooks.
const OTHER_FILES: u64 = 256;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// The pause after a connection could not be accepted, such as for too many open files.
const REST: Duration = Duration::from_secs(1);
/// How long a client of HTTP/2 has to close an idle connection when it is asked to.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often the log repeats that the limit is reached.
const LOG: Duration = Duration::from_mins(1);

/// Whether other machines can reach an address.
pub(crate) fn is_public(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// A listener whose port can be bound again at once after the process has ended.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves connections until `stop` is cancelled, which is after the service has ended, and returns after the last
/// response.
pub(crate) async fn serve(listener: TcpListener, app: Router, limits: ConnectionLimits, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let open = TaskTracker::new();
    let mut logged: Option<Instant> = None;
    loop {
        if places.available_permits() == 0 && logged.is_none_or(|at| at.elapsed() > LOG) {
            logged = Some(Instant::now());
            tracing::warn!(limit = limits.connections, "no more connections are accepted until one is closed");
        }
        let Some(Ok(place)) = stop.run_until_cancelled(Arc::clone(&places).acquire_owned()).await else { break };
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    tracing::error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REST).await;
                }
                continue;
            }
        };
        let (app, stop) = (app.clone(), stop.clone());
        open.spawn(async move {
            gauge!("syncdiffusion_http_connections").increment(1.0);
            connection(stream, peer, app, limits, stop).await;
            gauge!("syncdiffusion_http_connections").decrement(1.0);
            drop(place);
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
}

/// Serves one connection. Errors on it concern its client alone.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    // Send small responses at once.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE).with_interval(PING));
    let (mut from, to) = stream.into_split();
    let begun = stop.run_until_cancelled(tokio::time::timeout(limits.header, beginning(&mut from))).await;
    let Some(Ok(Ok(begun))) = begun else { return };
    let is_http2 = begun == PREFACE;
    let activity = Activity::new(is_http2);
    let mut to = TimeoutWriter::new(Writer::new(to, &activity));
    to.set_timeout(Some(limits.write));
    let from = Cursor::new(begun).chain(Reader::new(from, &activity));
    let io = TokioIo::new(tokio::io::join(from, Box::pin(to)));
    let of_body = activity.clone();
    let app = ServiceExt::<Request<RequestBody<Incoming>>>::map_request(app, move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.map(|body| RequestBody::new(body, &of_body))
    });
    let service = TowerToHyperService::new(Tracked::new(app, &activity));
    // Both protocols in the same way; only the types differ.
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = pin!($connection);
            let mut stopping = false;
            let mut over = pin!(activity.until_over(limits));
            loop {
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = stop.cancelled(), if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    () = &mut over => break,
                }
            }
            // What a client of HTTP/2 sends at this moment it may send again: that is what this tells it.
            if is_http2 && !activity.is_stuck(limits) {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(limits.write.min(FAREWELL), connection).await;
            }
        }};
    }
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
        builder.max_concurrent_streams(MAX_STREAMS);
        drive!(builder.serve_connection(io, service));
    } else {
        let mut builder = http1::Builder::new();
        // `activity` has the deadline: hyper's is the same for a header that has begun and for an idle connection.
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEADER);
        drive!(builder.serve_connection(io, service));
    }
}

/// Reads until it is clear whether a client speaks HTTP/2.
async fn beginning(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut read = vec![0; PREFACE.len()];
    let mut length = 0;
    while length < read.len() && read[..length] == PREFACE[..length] {
        match from.read(&mut read[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => length += more,
        }
    }
    read.truncate(length);
    Ok(read)
}

/// How many files this process may open, after raising that limit as far as possible.
pub(crate) fn open_files() -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
    getrlimit(Resource::Nofile).current
}

/// How many connections can be open, given the limit of open files.
pub(crate) fn room(files: Option<u64>) -> usize {
    files.map_or(usize::MAX, |files| usize::try_from(files.saturating_sub(OTHER_FILES).max(1)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_read_until_its_protocol_is_clear() {
        for (sent, read) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], &b"GET / HTTP/1.1\r\n\r\n"[..]),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", PREFACE),
            (b"PRI * HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1\r\n\r\n"),
        ] {
            assert_eq!(beginning(&mut &sent[..]).await.unwrap(), read);
        }
        for cut in [&b""[..], b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            assert!(beginning(&mut &cut[..]).await.is_err(), "{cut:?}");
        }
    }

    #[test]
    fn some_files_are_reserved_for_other_things() {
        assert_eq!(room(Some(1024)), 768);
        assert_eq!(room(Some(10)), 1);
        assert_eq!(room(None), usize::MAX);
    }
}
