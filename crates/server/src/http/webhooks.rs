//! The secret that webhooks are signed with, where Replicate's clients look for it.
//!
//! Whoever can ask for it can forge webhooks, so it is there only if the operator says so (`--show-webhook-secret`). That the
//! server listens on a loopback address is not taken for an answer: a proxy before it lets everybody in.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{App, Error};

pub(super) fn router() -> Router<App> {
    Router::new().route("/v1/webhooks/default/secret", get(secret))
}

async fn secret(State(app): State<App>) -> Result<Json<Value>, Error> {
    let secret = app.shown_secret.as_ref().ok_or(Error::Hidden)?;
    Ok(Json(json!({ "key": secret.reveal() })))
}
