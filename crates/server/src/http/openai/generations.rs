//! POST `/v1/images/generations`.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;

use super::create::{Read, create};
use super::errors::Fault;
use super::jobs::Jobs;
use super::request::Asked;
use super::route::Route;
use crate::http::common::Raw;
use crate::http::error::Error;
use crate::http::head::Head;
use crate::http::state::App;

pub(super) async fn generate(
    State(app): State<App>,
    Extension(jobs): Extension<Jobs>,
    head: Head,
    body: Raw,
) -> Result<Response, Fault> {
    // Until a worker has loaded, the model is unknown, and so is whether the request is valid.
    app.service.readiness().map_err(Error::from)?;
    let (geometry, ours) = (app.service.geometry(), app.view.model.clone());
    let read = move |bytes: Vec<u8>| Ok(Read::json(&bytes, Asked::read(&bytes, geometry, &ours)?));
    let (read, room) = body.parse::<_, Fault>(read).await?;
    create(app, jobs, &head, Route::Generations, (read, room)).await
}
