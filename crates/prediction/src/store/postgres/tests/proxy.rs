//! A proxy between a store and its database. It can lose an answer together with its connection, be slow, or let
//! connections hang, and it looks whether statements are named.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// The proxy. Its threads end with the process.
pub(super) struct Proxy {
    pub(super) url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// How many answers are passed on until one is lost; at 0 none is.
    until: AtomicU32,
    lost: AtomicU32,
    named: AtomicBool,
    is_slow: AtomicBool,
    /// How many connections were made, and how many of the first of them hang.
    made: AtomicU32,
    frozen: AtomicU32,
}

impl Proxy {
    /// Stands before the database of a URL, whose server listens on a socket in a folder.
    pub(super) fn before(url: &str) -> Self {
        let (user, rest) = url.split_once('@').unwrap();
        let (folder, name) = rest.split_once('/').unwrap();
        let socket = format!("{}/.s.PGSQL.5432", folder.replace("%2F", "/"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{user}@127.0.0.1:{}/{name}", listener.local_addr().unwrap().port());
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), UnixStream::connect(&socket).unwrap());
                join(client, server, &shared);
            }
        });
        Self { url, state }
    }

    /// Loses the answer to the `n`th transaction from now on.
    pub(super) fn lose(&self, n: u32) {
        self.state.until.store(n, Ordering::SeqCst);
    }

    /// Answers have a mebibyte a second from now on, on each connection.
    pub(super) fn slow_down(&self) {
        self.state.is_slow.store(true, Ordering::SeqCst);
    }

    /// Passes nothing on any more from the connections that there are, and leaves them open.
    pub(super) fn freeze(&self) {
        self.state.frozen.store(self.state.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// How many answers were lost.
    pub(super) fn lost(&self) -> u32 {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// Whether a statement had a name.
    pub(super) fn has_seen_names(&self) -> bool {
        self.state.named.load(Ordering::SeqCst)
    }
}

/// A part of the protocol: its kind, and all of its bytes.
fn part(from: &mut impl Read, has_kind: bool) -> io::Result<(u8, Vec<u8>)> {
    let mut bytes = vec![0; if has_kind { 5 } else { 4 }];
    from.read_exact(&mut bytes)?;
    let (kind, length) = bytes.split_at(bytes.len() - 4);
    let (kind, length) = (kind.first().copied().unwrap_or(0), u32::from_be_bytes(length.try_into().unwrap()));
    let head = bytes.len();
    bytes.resize(head + length as usize - 4, 0);
    from.read_exact(&mut bytes[head..])?;
    Ok((kind, bytes))
}

/// Passes an answer on.
fn pass(to: &mut TcpStream, bytes: &[u8], state: &State) -> io::Result<()> {
    if !state.is_slow.load(Ordering::SeqCst) {
        return to.write_all(bytes);
    }
    for piece in bytes.chunks(1 << 16) {
        to.write_all(piece)?;
        thread::sleep(Duration::from_secs(1) * u32::try_from(piece.len()).unwrap() / (1 << 20));
    }
    Ok(())
}

fn join(client: TcpStream, server: UnixStream, state: &Arc<State>) {
    let (mut from_client, mut to_server, shared) =
        (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(state));
    let number = state.made.fetch_add(1, Ordering::SeqCst);
    thread::spawn(move || {
        let mut is_first = true;
        while let Ok((kind, bytes)) = part(&mut from_client, !is_first) {
            is_first = false;
            if number < shared.frozen.load(Ordering::SeqCst) {
                continue;
            }
            let mut names = bytes[bytes.len().min(5)..].split(|byte| *byte == 0);
            let name = match kind {
                b'P' => names.next(),
                b'B' => names.nth(1),
                _ => None,
            };
            if name.is_some_and(|name| !name.is_empty()) {
                shared.named.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&bytes).is_err() {
                break;
            }
        }
        _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut from_server, mut to_client, shared) = (server, client, Arc::clone(state));
    thread::spawn(move || {
        let mut has_begun = false;
        while let Ok((kind, bytes)) = part(&mut from_server, true) {
            let is_over = kind == b'Z' && bytes.last() == Some(&b'I');
            let is_lost = has_begun && shared.until.load(Ordering::SeqCst) == 1;
            if is_over && has_begun {
                _ = shared.until.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |until| until.checked_sub(1));
            }
            if is_lost && is_over {
                shared.lost.fetch_add(1, Ordering::SeqCst);
                break;
            }
            // The first one is not an answer: the connection is made.
            has_begun |= is_over;
            if !is_lost && pass(&mut to_client, &bytes, &shared).is_err() {
                break;
            }
        }
        _ = to_client.shutdown(Shutdown::Both);
        _ = from_server.shutdown(Shutdown::Both);
    });
}
