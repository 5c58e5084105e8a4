//! `syncdiffusion serve`: binds, starts the service, serves until it is stopped, and ends gracefully.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prediction::Service;
use tokio_util::sync::CancellationToken;

use crate::activity::ConnectionLimits;
use crate::config::{ExitWithoutWorkers, Serve};
use crate::connections::{self, is_public, listen};
use crate::http::{self, App, Bodies, Pages, View};
use crate::signals::stop_on_signals;
use crate::store::{self, Opened};
use crate::telemetry::{self, Metrics};

/// How long connections may stay open after the service has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The exit code of a server that ended because no worker was left.
const NO_WORKER: u8 = 3;

/// Serves until SIGTERM, SIGINT or POST `/shutdown`, or until no worker is left.
pub(crate) async fn run(mut config: Serve) -> anyhow::Result<ExitCode> {
    telemetry::log_panics();
    if !config.is_without_workers() {
        config.worker.resolve()?;
    }
    let tokens = config.access.tokens()?;
    let metrics = Metrics::install()?;
    tokio::spawn(metrics.clone().upkeep());
    let address = config.address();
    let listener = listen(address).with_context(|| {
        format!("cannot listen on `{address}`; stop what listens there, or choose another `--port`")
    })?;
    let address = listener.local_addr()?;
    if tokens.is_empty() && is_public(address) {
        tracing::warn!(
            %address,
            "everybody who can reach this address may use the server; set `--api-token`, or `--host 127.0.0.1` for \
             this machine only"
        );
    }
    let Opened { store, files, signer, shared, database } = store::open(config.place(), config.outputs.access())?;
    let view = View { model: config.model_name.clone(), signer };
    let files = Arc::new(files);
    tokio::spawn(Arc::clone(&files).upkeep());
    let mut options = config.options(shared.as_ref())?;
    options.webhooks.translate = Some(Arc::new(view.clone()));
    let secret = options.webhooks.secret.clone();
    let shown_secret = config.outputs.show_webhook_secret.then(|| options.webhooks.secret.clone());
    let service = Service::start(store, options, config.programs()).await?;
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    // Nobody may be reading.
    std::thread::Builder::new().name("announcement".to_owned()).spawn(move || announce(address))?;
    let app = App {
        service: service.clone(),
        stop: stop.clone(),
        public_url: config.public_url.clone(),
        port: address.port(),
        secret,
        view,
        files,
        shown_secret,
        over: over.clone(),
        tokens,
        bodies: Bodies::new(config.limits.max_body),
        pages: Pages::default(),
        metrics,
    };
    let app = http::app(app, &config.access, &config.limits);
    let serving = tokio::spawn(connections::serve(listener, app, limits(&config), over.clone()));
    stop_on_signals(&stop, config.await_explicit_shutdown)?;
    if config.kubernetes_service_host.is_some() {
        tokio::spawn(report_ready_to_kubernetes(service.clone()));
    }
    let code = tokio::select! {
        () = stop.cancelled() => ExitCode::SUCCESS,
        () = until_abandoned(&service, config.exit_without_workers) => ExitCode::from(NO_WORKER),
    };
    stop.cancel();
    tracing::info!(grace_seconds = config.grace.as_secs(), "stopping");
    service.close(config.grace).await;
    over.cancel();
    if let Ok(served) = tokio::time::timeout(LAST_ANSWERS, serving).await {
        served?;
    } else {
        tracing::warn!("exiting while connections are open");
    }
    if let Some(error) = database.and_then(|database| database.leave().err()) {
        tracing::warn!(%error, "the database does not know that this server has ended; others will find out");
    }
    tracing::info!("stopped");
    Ok(code)
}

/// Waits until no worker is left and the server is to end for that.
async fn until_abandoned(service: &Service, when: ExitWithoutWorkers) {
    let lost = service.without_workers().await.is_some();
    match when {
        ExitWithoutWorkers::Always => {}
        ExitWithoutWorkers::Lost if lost => {}
        _ => std::future::pending().await,
    }
    tracing::error!(
        status = NO_WORKER,
        "stopping, because no worker is left; `--exit-without-workers never` stays, and the next start continues with \
         what waits"
    );
}

/// Limits of connections: no more of them than files can be open.
fn limits(config: &Serve) -> ConnectionLimits {
    let (wanted, room) = (config.limits.max_connections.max(1), connections::room(connections::open_files()));
    if room < wanted {
        tracing::warn!(
            wanted,
            room,
            "the limit of open files leaves room for fewer connections than `--max-connections`; raise it with \
             `ulimit -n`"
        );
    }
    ConnectionLimits {
        connections: wanted.min(room),
        header: config.limits.header_timeout,
        idle: config.limits.idle_timeout,
        write: config.limits.write_timeout,
    }
}

/// Writes the file that probes of Kubernetes look for, as soon as the server is ready.
async fn report_ready_to_kubernetes(service: Service) {
    while !service.accepts_work() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let dir = Path::new("/var/run/cog");
    if let Err(error) = fs::create_dir_all(dir).and_then(|()| fs::write(dir.join("ready"), "")) {
        tracing::warn!(%error, "`/var/run/cog/ready` cannot be written; probes that look for it will wait");
    }
}

/// Prints where to look, and how to request a first picture.
fn announce(address: SocketAddr) {
    let host = if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = format!("http://{host}:{}", address.port());
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "Listening on {address}. Open {url}/playground in a browser, or try:");
    let _ = writeln!(
        stdout,
        "  curl -s {url}/predictions -H 'content-type: application/json' \
         -d '{{\"input\":{{\"prompt\":\"a photo of a mountain range at twilight\"}}}}'"
    );
}
