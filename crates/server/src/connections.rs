//! Connections: so many at once, with deadlines for those that say nothing, and an end in order.
//!
//! What always holds: a client that sends no header in time loses its connection, whatever it speaks, and so does one that leaves its
//! answer unread. Making an answer has no deadline, for pictures take minutes.

use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use metrics::gauge;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;

/// What HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often a client of HTTP/2 is asked whether it is there.
const PING: Duration = Duration::from_secs(20);
/// Files that are kept for other things than connections: the store, workers, webhooks.
const OTHER_FILES: u64 = 256;
/// How long accepting rests after an error, such as too many open files.
const REST: Duration = Duration::from_secs(1);
/// How often it is said that there is no room.
const SAY: Duration = Duration::from_mins(1);

/// What connections may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many may be open.
    pub(crate) connections: usize,
    /// How long a header may take, and a connection may be idle.
    pub(crate) header: Duration,
    /// How long an answer may be left unread.
    pub(crate) write: Duration,
}

/// Serves connections until told to stop, and returns when the last answer is out.
pub(crate) async fn serve(listener: TcpListener, app: Router, limits: Limits, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut said: Option<Instant> = None;
    loop {
        if places.available_permits() == 0 && said.is_none_or(|at| at.elapsed() > SAY) {
            said = Some(Instant::now());
            tracing::warn!(limit = limits.connections, "no more connections are accepted until one is closed");
        }
        let Some(Ok(place)) = stop.run_until_cancelled(Arc::clone(&places).acquire_owned()).await else { break };
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    tracing::error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REST).await;
                }
                continue;
            }
        };
        let (app, stop, watcher) = (app.clone(), stop.clone(), graceful.watcher());
        tokio::spawn(async move {
            gauge!("syncdiffusion_http_connections").increment(1.0);
            connection(stream, app, limits, stop, watcher).await;
            gauge!("syncdiffusion_http_connections").decrement(1.0);
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Serves one connection. What goes wrong on it is its client's concern.
async fn connection(stream: TcpStream, app: Router, limits: Limits, stop: CancellationToken, watcher: Watcher) {
    // Small answers leave at once.
    let _ = stream.set_nodelay(true);
    let (mut from, to) = stream.into_split();
    let begun = stop.run_until_cancelled(tokio::time::timeout(limits.header, beginning(&mut from))).await;
    let Some(Ok(Ok(begun))) = begun else { return };
    let is_http2 = begun == PREFACE;
    let mut to = TimeoutWriter::new(to);
    to.set_timeout(Some(limits.write));
    let io = TokioIo::new(tokio::io::join(Cursor::new(begun).chain(from), Box::pin(to)));
    let service = TowerToHyperService::new(app);
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
        let _ = watcher.watch(builder.serve_connection(io, service)).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.header);
        let _ = watcher.watch(builder.serve_connection(io, service)).await;
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

/// How many files this process may open, after raising that as far as it goes.
pub(crate) fn open_files() -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
    getrlimit(Resource::Nofile).current
}

/// How many connections can be open with so many files.
pub(crate) fn room(files: Option<u64>) -> usize {
    files.map_or(usize::MAX, |files| usize::try_from(files.saturating_sub(OTHER_FILES).max(1)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_beginning_is_read_as_far_as_it_tells() {
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
    fn some_files_are_kept_for_other_things() {
        assert_eq!(room(Some(1024)), 768);
        assert_eq!(room(Some(10)), 1);
        assert_eq!(room(None), usize::MAX);
    }
}
