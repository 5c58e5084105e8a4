//! The state of the server: `/health-check` for Cog's clients, `/ready` and `/live` for probes.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prediction::service::{Health, Setup, State as Is};
use serde::Serialize;

use super::state::App;

/// The version of Cog's server whose contract is kept.
pub(super) const COG_VERSION: &str = "0.23.1";

pub(super) fn router() -> Router<App> {
    Router::new().route("/health-check", get(check)).route("/ready", get(ready)).route("/live", get(live))
}

/// The body of `/health-check`, in the order of Cog.
#[derive(Debug, Serialize)]
struct Body {
    status: Is,
    setup: Setup,
    version: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_healthcheck_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Version {
    coglet: &'static str,
    syncdiffusion: &'static str,
}

impl From<Health> for Body {
    fn from(health: Health) -> Self {
        let version = Version { coglet: COG_VERSION, syncdiffusion: env!("CARGO_PKG_VERSION") };
        let Health { status, setup, user_healthcheck_error } = health;
        Self { status, setup, version, user_healthcheck_error }
    }
}

/// Always 200; the body has the state.
async fn check(State(app): State<App>) -> Json<Body> {
    Json(app.service.health().into())
}

/// 200 while predictions are accepted, which a server that stops does not.
async fn ready(State(app): State<App>) -> Response {
    probe(&app, |is| !app.stop.is_cancelled() && is.is_ready())
}

/// 200 unless the server cannot recover without a restart.
async fn live(State(app): State<App>) -> Response {
    probe(&app, |is| is != Is::Defunct)
}

fn probe(app: &App, is_well: impl Fn(Is) -> bool) -> Response {
    let health = app.service.health();
    let status = if is_well(health.status) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Body::from(health))).into_response()
}
