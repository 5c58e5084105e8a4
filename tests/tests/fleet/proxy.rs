//! A way between a server and its database that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::Database;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Notify;

/// A proxy.
pub(crate) struct Proxy {
    port: u16,
    cut: Arc<(AtomicBool, Notify)>,
}

impl Proxy {
    pub(crate) async fn start(database: &Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new((AtomicBool::new(false), Notify::new()));
        let (socket, until) = (database.socket(), Arc::clone(&cut));
        tokio::spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else { return };
                let (socket, until) = (socket.clone(), Arc::clone(&until));
                tokio::spawn(async move {
                    if until.0.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(mut server) = UnixStream::connect(socket).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        () = until.1.notified() => {}
                    }
                });
            }
        });
        Self { port, cut }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends all connections, and lets no other through.
    pub(crate) fn cut(&self) {
        self.cut.0.store(true, Ordering::SeqCst);
        self.cut.1.notify_waiters();
    }

    /// Lets connections through again.
    pub(crate) fn pass(&self) {
        self.cut.0.store(false, Ordering::SeqCst);
    }
}
