//! Predictions: created by POST and PUT, shown, canceled and removed.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prediction::given_pictures::Fitting;
use prediction::input::{self, Invalid};
use prediction::output::{self, MAX_THUMBNAIL, thumbnail_width};
use prediction::service::{self, Submitted, Ticket};
use prediction::upload::check_prefix;
use prediction::webhook::Webhook;
use prediction::{Prediction, Status};
use serde::Deserialize;
use serde_json::json;
use tracing::Span;

use super::accept::{self, Prefer};
use super::body::{MAX_ID, PredictionRequest};
use super::error::Error;
use super::events;
use super::head::Head;
use super::list::list;
use super::path::Path;
use super::state::App;
use crate::telemetry;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/predictions", post(create).get(list))
        .route("/predictions/{id}", get(show).put(put).delete(remove))
        .route("/predictions/{id}/cancel", post(cancel))
        .route("/predictions/{id}/output", get(picture))
        .route("/predictions/{id}/stream", get(events::stream))
}

async fn create(State(app): State<App>, head: Head, body: PredictionRequest) -> Result<Response, Error> {
    // A path cannot name the empty id, so another one is made up.
    let id = body.id.clone().filter(|id| !id.is_empty());
    make(&app, &head, body, id, false).await
}

async fn put(
    State(app): State<App>,
    Path(id): Path<String>,
    head: Head,
    body: PredictionRequest,
) -> Result<Response, Error> {
    if body.id.as_ref().is_some_and(|named| *named != id) {
        return Err(Error::invalid("id", "prediction ID must match the ID supplied in the URL"));
    }
    // A prediction that exists is returned whatever else the request says.
    if let Some(known) = app.service.get(&id).await? {
        if accept::wants_events(&head.headers) {
            return events::attach(&app, &id, 0, Prefer::read(&head.headers).preview).await;
        }
        return Ok(existing(known));
    }
    make(&app, &head, body, Some(id), true).await
}

/// Refuses an id that no URL can name, or that is too long.
fn check_id(id: &str) -> Result<(), Error> {
    if matches!(id, "." | "..") {
        let message = format!("`{id}` cannot be an id: clients and proxies remove it from a path; choose another");
        return Err(Error::invalid("id", message));
    }
    if id.len() > MAX_ID {
        let message = format!("an id of {} bytes is longer than the maximum of {MAX_ID}", id.len());
        return Err(Error::invalid("id", message));
    }
    Ok(())
}

/// Submits a prediction and answers as the client prefers.
async fn make(
    app: &App,
    Head { request_id, token, headers, .. }: &Head,
    body: PredictionRequest,
    id: Option<String>,
    idempotent: bool,
) -> Result<Response, Error> {
    // Until a worker has loaded, the model is unknown, and so is whether the input is valid.
    app.service.readiness()?;
    let parsed = input::parse(&body.input.value, app.service.geometry())
        .map_err(|errors| Error::Invalid(errors.iter().map(Invalid::detail).collect()))?;
    let webhook = body
        .webhook
        .map(|url| Webhook::new(&url, body.webhook_events_filter, accept::trace(headers), app.service.gate()))
        .transpose()
        .map_err(|refused| Error::invalid("webhook", refused.to_string()))?;
    body.output_file_prefix
        .as_deref()
        .map_or(Ok(()), |prefix| check_prefix(prefix, app.service.gate()))
        .map_err(|refused| Error::invalid("output_file_prefix", refused.to_string()))?;
    let cancel_after = accept::cancel_after(headers)?;
    if let Some(id) = &id {
        check_id(id)?;
        Span::current().record("prediction_id", id);
    }
    if !body.input.unknown.is_empty() {
        tracing::warn!(fields = ?body.input.unknown, "Stripped unknown input fields");
    }
    let (prefer, streams) = (Prefer::read(headers), accept::wants_events(headers));
    // A PUT names its prediction by its id.
    let key = body.key.filter(|_| !idempotent);
    let request = service::Request {
        id,
        name: token.0.to_string(),
        input: parsed.input,
        sent: body.input.sent,
        webhook,
        output_file_prefix: body.output_file_prefix,
        wanted: output::Wanted::default(),
        fitting: Fitting::default(),
        base: app.base(headers),
        cancel_after,
        // What has a key is asked for again by a client that lost its connection.
        detached: (prefer.respond_async && !streams) || key.is_some(),
        idempotent,
        key,
        asker: None,
        span: telemetry::prediction(&request_id.0),
    };
    let submitted = app.service.submit(request).await?;
    drop(body.room);
    let ticket = match submitted {
        Submitted::New(ticket) => ticket,
        Submitted::Live(known) | Submitted::Ended(known) if streams => {
            return events::attach(app, &known.id, 0, prefer.preview).await;
        }
        // A repeated POST is answered as the first one is.
        Submitted::Live(known) if !idempotent && !prefer.respond_async => match app.service.join(&known.id).await? {
            Some(ticket) => return Ok(wait(ticket, prefer).await),
            None => return Ok(existing(app.service.get(&known.id).await?.unwrap_or(*known))),
        },
        Submitted::Live(known) | Submitted::Ended(known) => return Ok(existing(*known)),
    };
    if streams {
        return Ok(events::follow(app, ticket.follow(), prefer.preview));
    }
    if prefer.respond_async && prefer.wait.is_none() {
        let accepted = Prediction { status: Status::Starting, started_at: None, ..ticket.snapshot().await };
        return Ok((StatusCode::ACCEPTED, Json(accepted)).into_response());
    }
    Ok(wait(ticket, prefer).await)
}

/// Waits for the end, or as long as the client asks for. A client that disconnects drops the ticket.
async fn wait(mut ticket: Ticket, prefer: Prefer) -> Response {
    let limit = prefer.wait.unwrap_or(Duration::MAX);
    let end = tokio::time::timeout(limit, ticket.end()).await.ok().flatten();
    ticket.detach();
    match end {
        Some(prediction) => (StatusCode::OK, Json(prediction.as_ref())).into_response(),
        None => (StatusCode::ACCEPTED, Json(ticket.snapshot().await)).into_response(),
    }
}

/// Answers with a prediction that existed before: 200 if it has ended, 202 if not.
fn existing(prediction: Prediction) -> Response {
    let status = if prediction.status.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    (status, Json(prediction)).into_response()
}

async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Prediction>, Error> {
    app.service.get(&id).await?.map(Json).ok_or(Error::Unknown(id))
}

async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Error> {
    let status = if app.service.cancel(&id).await? { StatusCode::OK } else { StatusCode::NOT_FOUND };
    Ok((status, Json(json!({}))).into_response())
}

async fn remove(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Error> {
    if app.service.is_held(&id) {
        return Err(Error::NotEnded(id));
    }
    if app.service.delete(&id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    // Another server may be at it.
    Err(if app.service.get(&id).await?.is_some() { Error::NotEnded(id) } else { Error::Unknown(id) })
}

/// Which picture of a prediction is asked for, and how.
#[derive(Debug, Deserialize)]
struct Wanted {
    /// Its number.
    n: Option<u32>,
    /// A small copy of it, of this width or a little more.
    width: Option<u32>,
}

/// A picture of a prediction as a file.
async fn picture(
    State(app): State<App>,
    Path(id): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(Wanted { n, width }) =
        wanted.map_err(|rejection| Error::Body(rejection.status(), rejection.body_text()))?;
    let n = n.unwrap_or_default();
    let width = match width {
        None => None,
        Some(width) => Some(thumbnail_width(width).ok_or_else(|| {
            let message = format!("`width` is `{width}`, not between 1 and {MAX_THUMBNAIL}");
            Error::Body(StatusCode::UNPROCESSABLE_ENTITY, message)
        })?),
    };
    picture_of(&app, id, n, width).await
}

/// A picture of a prediction, or a small copy of it.
pub(super) async fn picture_of(app: &App, id: String, n: u32, width: Option<u32>) -> Result<Response, Error> {
    let missing = |id| if n == 0 { Error::Unknown(id) } else { Error::NoPicture(id, n) };
    let picture = app.service.picture(&id, n, width).await?.ok_or_else(|| missing(id))?;
    Ok(([(header::CONTENT_TYPE, picture.media)], picture.bytes.to_vec()).into_response())
}
