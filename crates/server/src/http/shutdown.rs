//! POST `/shutdown`: stops the server as SIGTERM does.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::App;

pub(super) fn router() -> Router<App> {
    Router::new().route("/shutdown", post(shutdown))
}

async fn shutdown(State(app): State<App>) -> Json<Value> {
    tracing::info!("shutdown was asked for by a request");
    app.stop.cancel();
    Json(json!({}))
}
