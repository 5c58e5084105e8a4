//! OpenAI's images: `/v1/images/generations` and `/v1/images/edits`, and one model under the names that clients know.
//!
//! - `generations`, `edits`: how requests of the two routes are read; `create`: what they have in common; `route`:
//!   their names;
//! - `request`: what is asked for; `options`: its keys, one by one;
//! - `jobs`: what is being drawn, so that a retry finds it;
//! - `answer`, `stream`: the two forms of an answer; `usage`: what is counted;
//! - `errors`: OpenAI's errors, for every response of these paths.
//!
//! What always holds: every error has all four keys; a picture has exactly the size that was asked for.

mod answer;
mod create;
mod edits;
mod errors;
mod generations;
mod jobs;
mod models;
mod options;
mod request;
mod route;
mod stream;
mod usage;

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Router};

pub(super) use errors::dress;
pub(super) use models::cards;

use self::jobs::Jobs;
use super::state::App;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/images/generations", post(generations::generate).options(methods))
        .route("/v1/images/edits", post(edits::edit).options(methods))
        .route("/v1/models/capabilities", get(models::capabilities))
        .route("/v1/models/{model}", get(models::show))
        .layer(Extension(Jobs::default()))
}

/// Clients ask for this to learn whether the route exists.
async fn methods() -> impl IntoResponse {
    (StatusCode::NO_CONTENT, [(header::ALLOW, "OPTIONS, POST")])
}
