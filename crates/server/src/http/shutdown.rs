//! POST `/shutdown`: stops the server as SIGTERM does.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::state::App;

pub(super) fn router() -> Router<App> {
    Router::new().route("/shutdown", post(shutdown))
}

async fn shutdown(State(app): State<App>) -> Json<Value> {
    tracing::info!("stopping on a request");
    app.stop.cancel();
    Json(json!({}))
}
