//! POST `/sdapi/v1/txt2img` and `/sdapi/v1/img2img`. A client that leaves has its pictures stopped.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use prediction::service::Submitted;
use serde_json::{Value, json};

use super::errors::Fault;
use super::info::{hashes, info, parameters};
use super::request::{Asked, Route};
use super::runs::{Run, Runs, asker};
use crate::http::accept;
use crate::http::common::{self, Ended, Order, Raw};
use crate::http::error::Error;
use crate::http::head::Head;
use crate::http::idempotency;
use crate::http::state::App;

pub(super) async fn txt2img(
    State(app): State<App>,
    Extension(runs): Extension<Runs>,
    head: Head,
    body: Raw,
) -> Result<Response, Fault> {
    create(app, runs, head, Route::Txt2Img, body).await
}

pub(super) async fn img2img(
    State(app): State<App>,
    Extension(runs): Extension<Runs>,
    head: Head,
    body: Raw,
) -> Result<Response, Fault> {
    create(app, runs, head, Route::Img2Img, body).await
}

async fn create(app: App, runs: Runs, head: Head, route: Route, body: Raw) -> Result<Response, Fault> {
    app.service.readiness().map_err(Error::from)?;
    let geometry = app.service.geometry();
    let key = idempotency::key(&head.headers, &head.caller, &body.bytes)?;
    let (mut asked, room) = body.parse::<_, Fault>(move |bytes| Asked::read(&bytes, route, geometry)).await?;
    let room = room.filter(|_| !asked.sent.is_empty());
    let order = Order {
        input: asked.input.clone(),
        sent: std::mem::take(&mut asked.sent),
        wanted: asked.wanted,
        fitting: asked.fitting,
        webhook: None,
        cancel_after: accept::cancel_after(&head.headers)?,
        key,
        asker: Some(asker(&head.caller, route)),
    };
    let submitted = order.submit(&app, &head).await.map_err(|error| asked.names.error(error))?;
    drop(room);
    let run = runs.begin(head.caller, common::id(&submitted), route, asked.input.num_outputs);
    Ok(common::answer(pictures(app, submitted, asked, run)).await)
}

/// Waits for the pictures, as a run that others see.
async fn pictures(app: App, submitted: Submitted, asked: Asked, _run: Run) -> Result<Value, Response> {
    let ended = common::ended(&app, submitted).await.map_err(|error| Fault::from(error).into_response())?;
    let prediction = match ended {
        Ended::Done(prediction) => prediction,
        Ended::Failed(prediction) => return Err(Fault::failed(&prediction).into_response()),
        Ended::Left => return Err(Fault::closing().into_response()),
    };
    let mut images = Vec::new();
    for n in 0..prediction.input.num_outputs {
        let picture = common::base64(&app, &prediction, n).await.map_err(|error| Fault::from(Error::from(error)));
        let picture = picture.and_then(|picture| picture.ok_or_else(|| Fault::lost("the picture is no longer kept")));
        images.push(picture.map_err(Fault::into_response)?);
    }
    let Asked { input, size, .. } = asked;
    let hashes =
        hashes(&app, &prediction.input).await.map_err(|error| Fault::from(Error::from(error)).into_response())?;
    Ok(json!({ "images": images, "parameters": parameters(&input, size), "info": info(&prediction, size, &hashes) }))
}
