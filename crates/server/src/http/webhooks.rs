//! The secret that webhooks are signed with, where Replicate's clients look for it.
//!
//! Everybody who can read it can forge webhooks, so it is served only if the operator says so
//! (`--show-webhook-secret`). A loopback address is not enough: a proxy in front of the server would let everybody in.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::error::Error;
use super::state::App;

pub(super) fn router() -> Router<App> {
    Router::new().route("/v1/webhooks/default/secret", get(secret))
}

async fn secret(State(app): State<App>) -> Result<Json<Value>, Error> {
    let secret = app.shown_secret.as_ref().ok_or(Error::SecretNotShown)?;
    Ok(Json(json!({ "key": secret.reveal() })))
}
