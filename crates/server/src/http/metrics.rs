//! GET `/metrics`: metrics for Prometheus.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::state::App;

/// The type of the text format of Prometheus.
const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn router() -> Router<App> {
    Router::new().route("/metrics", get(render))
}

async fn render(State(app): State<App>) -> impl IntoResponse {
    // Without an answer of the store they stay as they were.
    let usage = app.service.usage().await.unwrap_or_default();
    ([(header::CONTENT_TYPE, TYPE)], app.metrics.render(&app.service.counts(), &usage))
}
