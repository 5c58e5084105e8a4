//! Replicate's `/v1`, for its clients: the same predictions in other words.
//!
//! - `predictions`, `list`: created by version or by model, read, canceled, listed; `request`: their bodies;
//! - `models`: the model, its version, searches; `account`: the account, the hardware, and lists that are empty here;
//! - `files`: what clients upload to use as inputs; `inputs`: inputs that name such a file;
//! - `streams`: events and pictures under names that need no token;
//! - `view`: a prediction as these clients read it; `problem`: errors as `application/problem+json`.
//!
//! What always holds: every URL is absolute, every status is one of five, and every error below `/v1` has a `detail`
//! that is a text. Clients expect no more than that from what they do not use.

mod account;
mod files;
mod inputs;
mod list;
mod models;
mod predictions;
mod problem;
mod request;
mod streams;
mod view;

use axum::Router;

pub(super) use problem::dress;
pub(crate) use view::View;

use super::state::App;

pub(super) fn router() -> Router<App> {
    Router::new()
        .merge(predictions::router())
        .merge(models::router())
        .merge(account::router())
        .merge(files::router())
        .merge(streams::router())
}
