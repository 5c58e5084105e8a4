//! HTTP: Cog's endpoints and ours. One file a resource; [`app`] puts them together.
//!
//! Handlers read the request, call the service and write what it says; they decide nothing about predictions.

mod accept;
mod body;
mod error;
mod events;
mod files;
mod health;
mod pages;
mod predictions;
mod shutdown;
mod webhooks;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::map_request;
use prediction::Service;
use prediction::webhook::signature::Secret;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub(crate) use error::Error;

/// Largest body of a request, as Cog has it.
const MOST_BODY: usize = 100 << 20;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct App {
    /// The service.
    pub(crate) service: Service,
    /// Cancelled to stop the server.
    pub(crate) stop: CancellationToken,
    /// Cancelled when nothing will happen to predictions any more.
    pub(crate) over: CancellationToken,
    /// The address that clients are told, if it is fixed.
    pub(crate) public_url: Option<String>,
    /// The port, for clients that name no host.
    pub(crate) port: u16,
    /// What webhooks are signed with, if it is shown.
    pub(crate) shown_secret: Option<Secret>,
}

/// All routes.
pub(crate) fn app(app: App) -> Router {
    Router::new()
        .merge(pages::router())
        .merge(health::router())
        .merge(predictions::router())
        .merge(files::router())
        .merge(webhooks::router())
        .merge(shutdown::router())
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(map_request(name_host))
        .with_state(app)
}

/// HTTP/2 names the host in the URL only; handlers look for it among the headers.
async fn name_host(mut request: Request) -> Request {
    let named = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = named {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    request
}
