//! What handlers share.

use std::sync::Arc;

use axum::extract::FromRef;
use axum::http::{HeaderMap, header};
use prediction::Service;
use prediction::client_files::ClientFiles;
use prediction::webhook::signature::Secret;
use tokio_util::sync::CancellationToken;

use super::replicate::View;
use super::room::{Bodies, Pages};
use crate::telemetry::Metrics;
use crate::tokens::Tokens;

/// The longest `Host` in bytes that is used: the longest name, and a port.
const MAX_HOST: usize = 253 + 6;

/// The state of the router. Cloned for every request.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) service: Service,
    /// Cancelled to stop the server.
    pub(crate) stop: CancellationToken,
    /// Cancelled when nothing more will happen to predictions.
    pub(crate) over: CancellationToken,
    /// The address for the `urls` of predictions, if it is fixed.
    pub(crate) public_url: Option<String>,
    /// The port, for clients that name no host.
    pub(crate) port: u16,
    pub(crate) tokens: Tokens,
    pub(crate) bodies: Bodies,
    /// The room for pages of lists.
    pub(crate) pages: Pages,
    pub(crate) metrics: Metrics,
    /// What the keys of links to pictures are computed from.
    pub(crate) secret: Secret,
    /// How Replicate's clients see predictions.
    pub(crate) view: View,
    /// What clients have uploaded.
    pub(crate) files: Arc<ClientFiles>,
    /// The secret that webhooks are signed with, if clients may ask for it.
    pub(crate) shown_secret: Option<Secret>,
}

impl App {
    /// The address under which the client reaches the server.
    pub(super) fn base(&self, headers: &HeaderMap) -> String {
        if let Some(url) = &self.public_url {
            return url.trim_end_matches('/').to_owned();
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let plain = |host: &&str| {
            host.len() <= MAX_HOST && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
        };
        match host.filter(plain) {
            Some(host) => format!("http://{host}"),
            None => format!("http://localhost:{}", self.port),
        }
    }
}

impl FromRef<App> for Bodies {
    fn from_ref(app: &App) -> Self {
        app.bodies.clone()
    }
}
