//! The account, the hardware, and what Replicate lists and this server has none of.

use axum::extract::State;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::list::Page;
use super::models::nothing;
use crate::http::state::App;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/account", get(account))
        .route("/v1/hardware", get(hardware))
        .route("/v1/collections", get(none))
        .route("/v1/collections/{slug}", any(nothing))
        .route("/v1/trainings", get(none))
        .route("/v1/trainings/{training}", any(nothing))
        .route("/v1/trainings/{training}/cancel", post(nothing))
        .route("/v1/deployments", get(none).post(nothing))
        .route("/v1/deployments/{owner}/{name}", any(nothing))
        .route("/v1/deployments/{owner}/{name}/predictions", any(nothing))
}

/// The owner of the model.
async fn account(State(app): State<App>) -> Json<Value> {
    let owner = app.view.model.owner();
    Json(json!({ "type": "organization", "username": owner, "name": owner, "github_url": null, "avatar_url": null }))
}

/// The device of the workers, once one has loaded.
async fn hardware(State(app): State<App>) -> Json<Value> {
    let one = |device: String| {
        let name = match device.split_once(':') {
            Some((kind, number)) => format!("{} {number}", kind.to_uppercase()),
            None => device.to_uppercase(),
        };
        json!({ "sku": device, "name": name })
    };
    Json(app.service.model().map(|model| one(model.device)).into_iter().collect())
}

/// An empty page.
async fn none() -> Json<Page<Value>> {
    Json(Page::of(Vec::new()))
}
