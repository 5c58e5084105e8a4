//! `syncdiffusion serve`: binds, starts the service, serves until told to stop, and ends in order.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prediction::Service;
use prediction::store::{Memory, Sqlite, Store};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Serve;
use crate::connections::{self, Limits};
use crate::http::{self, App};
use crate::telemetry::{self, Figures};

/// How long open connections may take to go after the service has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Serves until SIGTERM, SIGINT or POST `/shutdown`.
pub(crate) async fn run(mut config: Serve) -> anyhow::Result<()> {
    telemetry::log_panics();
    config.crew.resolve()?;
    let tokens = config.doors.tokens()?;
    let figures = Figures::install()?;
    tokio::spawn(figures.clone().upkeep());
    let address = SocketAddr::new(config.host, config.port);
    let listener = listen(address).with_context(|| {
        format!("cannot listen on `{address}`; stop what listens there, or choose another `--port`")
    })?;
    let address = listener.local_addr()?;
    if tokens.is_empty() && is_public(address) {
        tracing::warn!(
            %address,
            "everybody who can reach this address may use the server; set `--api-token`, or `--host 127.0.0.1` for this machine only"
        );
    }
    let store: Arc<dyn Store> =
        if config.in_memory() { Arc::new(Memory::default()) } else { Arc::new(Sqlite::open(&config.data_dir)?) };
    let options = config.options()?;
    let shown_secret = config.outputs.show_webhook_secret.then(|| options.webhooks.secret.clone());
    let service = Service::start(store, options, config.crew.programs(config.workers)).await?;
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    announce(address);
    let app = App {
        service: service.clone(),
        stop: stop.clone(),
        public_url: config.public_url.clone(),
        port: address.port(),
        shown_secret,
        over: over.clone(),
        tokens,
        figures,
    };
    let app = http::app(app, &config.doors);
    let serving = tokio::spawn(connections::serve(listener, app, limits(&config), stop.clone()));
    signals(&stop, config.await_explicit_shutdown)?;
    if config.kubernetes_service_host.is_some() {
        tokio::spawn(tell_kubernetes(service.clone()));
    }
    stop.cancelled().await;
    tracing::info!(grace_seconds = config.grace.as_secs(), "stopping");
    service.close(config.grace).await;
    over.cancel();
    if let Ok(served) = tokio::time::timeout(LAST_ANSWERS, serving).await {
        served?;
    } else {
        tracing::warn!("connections were still open at the end");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Whether others than this machine can reach an address.
pub(crate) fn is_public(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// What connections may do: no more of them than there can be open files.
fn limits(config: &Serve) -> Limits {
    let (wanted, room) = (config.doors.max_connections.max(1), connections::room(connections::open_files()));
    if room < wanted {
        tracing::warn!(
            wanted,
            room,
            "the limit of open files leaves room for fewer connections than `--max-connections`; raise it with `ulimit -n`"
        );
    }
    Limits { connections: wanted.min(room), header: config.doors.header_timeout, write: config.doors.write_timeout }
}

/// A listener whose port can be taken again at once after an end.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Writes the file that probes in Kubernetes look for, as soon as the server is ready.
async fn tell_kubernetes(service: Service) {
    while !service.accepts_work() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let dir = Path::new("/var/run/cog");
    if let Err(error) = fs::create_dir_all(dir).and_then(|()| fs::write(dir.join("ready"), "")) {
        tracing::warn!(%error, "`/var/run/cog/ready` cannot be written; probes that look for it will wait");
    }
}

/// Says where to look, and how to ask for a first picture.
fn announce(address: SocketAddr) {
    let host = if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = format!("http://{host}:{}", address.port());
    println!("Listening on {address}. Open {url}/playground in a browser, or try:");
    println!(
        "  curl -s {url}/predictions -H 'content-type: application/json' \
         -d '{{\"input\":{{\"prompt\":\"a photo of a mountain range at twilight\"}}}}'"
    );
}

/// Stops the server at the first signal, and ends the process at the second: nothing is lost that was accepted.
fn signals(stop: &CancellationToken, ignore_term: bool) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if name == "SIGTERM" && ignore_term {
                continue;
            }
            if stop.is_cancelled() {
                tracing::warn!(name, "a second signal; ending at once");
                std::process::exit(1);
            }
            tracing::info!(name, "a signal to stop");
            stop.cancel();
        }
    });
    Ok(())
}
