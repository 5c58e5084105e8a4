//! GET `/usage`: what was drawn for the tokens of each name.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use prediction::store;
use serde_json::{Value, json};

use super::error::Error;
use super::state::App;

pub(super) fn router() -> Router<App> {
    Router::new().route("/usage", get(usage))
}

async fn usage(State(app): State<App>) -> Result<Json<Value>, Error> {
    let each: Vec<Value> = app.service.usage().await?.iter().map(show).collect();
    Ok(Json(json!({ "usage": each })))
}

fn show(usage: &store::Usage) -> Value {
    let store::Usage { name, predictions, succeeded, megapixels, seconds } = usage;
    let name = Some(name).filter(|name| !name.is_empty());
    json!({
        "name": name,
        "predictions": predictions,
        "succeeded": succeeded,
        "megapixels": megapixels,
        "seconds": seconds,
    })
}
