//! What handlers share.

use axum::extract::FromRef;
use prediction::Service;
use prediction::webhook::signature::Secret;
use tokio_util::sync::CancellationToken;

use super::body::Bodies;
use crate::telemetry::Metrics;
use crate::tokens::Tokens;

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
    pub(crate) metrics: Metrics,
    /// The secret that webhooks are signed with, if clients may ask for it.
    pub(crate) shown_secret: Option<Secret>,
}

impl FromRef<App> for Bodies {
    fn from_ref(app: &App) -> Self {
        app.bodies.clone()
    }
}
