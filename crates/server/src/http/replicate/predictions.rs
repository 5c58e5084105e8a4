//! Predictions: created by version or by model, read and canceled.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prediction::given_pictures::Fitting;
use prediction::input::validate::Detail;
use prediction::input::{self, Invalid};
use prediction::output::Wanted;
use prediction::service::{self, Submitted, Ticket};
use prediction::webhook::Webhook;
use prediction::{Prediction, Time};

use super::inputs;
use super::list::list;
use super::request::CreateRequest;
use super::view::Pictures;
use crate::config::ModelName;
use crate::http::accept;
use crate::http::error::Error;
use crate::http::head::Head;
use crate::http::path::Path;
use crate::http::state::App;
use crate::telemetry;

/// The longest time that a client can wait for, in seconds.
const MAX_WAIT: u64 = 60;
/// How long a request is held at most: clients give up after 60 seconds, and some of them begin again.
const MAX_HOLD: Duration = Duration::from_secs(57);
/// What an answer takes to reach a client that waits for no more than it said.
const LEEWAY: Duration = Duration::from_millis(100);
/// How long a cancellation waits to show that it was done.
const UNTIL_CANCELED: Duration = Duration::from_secs(2);
/// What of `Prefer` was honoured.
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/predictions", post(create).get(list))
        .route("/v1/predictions/{id}", get(show))
        .route("/v1/predictions/{id}/cancel", post(cancel))
        .route("/v1/models/{owner}/{name}/predictions", post(create_by_model))
}

async fn create(State(app): State<App>, head: Head, body: CreateRequest) -> Result<Response, Error> {
    app.service.readiness()?;
    let version = body.version.as_deref().ok_or_else(|| {
        let loc = vec!["body".to_owned(), "version".to_owned()];
        let (msg, kind) = ("Field required".to_owned(), "value_error.missing".to_owned());
        Error::Invalid(vec![Detail { loc, msg, kind }])
    })?;
    check_version(&app, version)?;
    make(&app, &head, body).await
}

async fn create_by_model(
    State(app): State<App>,
    Path((owner, model)): Path<(String, String)>,
    head: Head,
    body: CreateRequest,
) -> Result<Response, Error> {
    check_model(&app, &owner, &model)?;
    app.service.readiness()?;
    body.version.as_deref().map_or(Ok(()), |version| check_version(&app, version))?;
    make(&app, &head, body).await
}

/// Refuses another model than the server's.
pub(super) fn check_model(app: &App, owner: &str, name: &str) -> Result<(), Error> {
    let ours: &ModelName = &app.view.model;
    if ours.is(owner, name) {
        return Ok(());
    }
    Err(Error::NoModel { asked: format!("{owner}/{name}"), ours: ours.to_string() })
}

/// Refuses another version than the model's: `VERSION`, `OWNER/NAME:VERSION`, or `OWNER/NAME` for the newest.
fn check_version(app: &App, asked: &str) -> Result<(), Error> {
    let (model, version) = match asked.split_once(':') {
        Some((model, version)) => (Some(model), Some(version)),
        None if asked.contains('/') => (Some(asked), None),
        None => (None, Some(asked)),
    };
    let known = app.service.model().map(|model| model.version);
    let is_model = |text: &str| text.split_once('/').is_some_and(|(owner, name)| app.view.model.is(owner, name));
    if model.is_none_or(is_model) && version.is_none_or(|version| known.as_deref() == Some(version)) {
        return Ok(());
    }
    Err(Error::Version)
}

/// Submits a prediction and answers as the client prefers.
async fn make(
    app: &App,
    Head { request_id, token, caller, headers }: &Head,
    mut body: CreateRequest,
) -> Result<Response, Error> {
    inputs::resolve(app, caller, &mut body.input).await?;
    let parsed = input::parse(&body.input.value, app.service.geometry())
        .map_err(|errors| Error::Invalid(errors.iter().map(Invalid::detail).collect()))?;
    let webhook = body
        .webhook
        .map(|url| Webhook::new(&url, body.events, accept::trace(headers), app.service.gate()))
        .transpose()
        .map_err(|refused| Error::invalid("webhook", refused.to_string()))?;
    let cancel_after = accept::cancel_after(headers)?;
    if !body.input.unknown.is_empty() {
        tracing::warn!(fields = ?body.input.unknown, "Stripped unknown input fields");
    }
    let base = app.base(headers);
    let request = service::Request {
        id: None,
        name: token.0.to_string(),
        input: parsed.input,
        sent: body.input.sent,
        webhook: webhook.map(Webhook::translated),
        output_file_prefix: None,
        wanted: Wanted::default(),
        fitting: Fitting::default(),
        base: base.clone(),
        cancel_after,
        // Clients come back to ask for it.
        detached: true,
        idempotent: false,
        key: body.key,
        asker: None,
        span: telemetry::prediction(&request_id.0),
    };
    let submitted = app.service.submit(request).await?;
    drop(body.room);
    let (ticket, known) = match submitted {
        Submitted::New(ticket) => (Some(ticket), None),
        Submitted::Live(known) | Submitted::Ended(known) => (app.service.join(&known.id).await?, Some(*known)),
    };
    let wanted = wait_of(headers);
    let prediction = match (ticket, known) {
        (Some(ticket), _) => held(ticket, wanted).await,
        (None, Some(known)) => app.service.get(&known.id).await?.unwrap_or(known),
        (None, None) => return Err(Error::Refused(service::Refused::Closing)),
    };
    let deadline = cancel_after.map(|wait| prediction.created_at.after(wait));
    Ok(created(app, &prediction, &base, deadline, wanted))
}

/// The prediction when it has ended, or when the client has waited long enough.
async fn held(mut ticket: Ticket, wanted: Option<u64>) -> Prediction {
    if let Some(seconds) = wanted {
        let hold = Duration::from_secs(seconds).saturating_sub(LEEWAY).min(MAX_HOLD);
        if let Ok(Some(ended)) = tokio::time::timeout(hold, ticket.end()).await {
            return Prediction::clone(&ended);
        }
    }
    ticket.snapshot().await
}

fn created(app: &App, prediction: &Prediction, base: &str, deadline: Option<Time>, wanted: Option<u64>) -> Response {
    let shown = app.view.unfinished(prediction, base, deadline);
    let location = HeaderValue::from_str(shown.address());
    let mut response = (StatusCode::CREATED, Json(shown)).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = location {
        headers.insert(header::LOCATION, location);
    }
    if let Some(applied) = wanted.and_then(|seconds| HeaderValue::from_str(&format!("wait={seconds}")).ok()) {
        headers.insert(APPLIED, applied);
    }
    response
}

/// How many seconds a client wants to wait for the end: `wait=N`, or `wait` for as long as possible.
fn wait_of(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).find_map(|preference| {
        let (name, seconds) = preference.split_once('=').map_or((preference, None), |(name, n)| (name, Some(n)));
        if !name.trim().eq_ignore_ascii_case("wait") {
            return None;
        }
        match seconds {
            None => Some(MAX_WAIT),
            Some(text) => text.trim().trim_matches('"').parse::<u64>().ok().map(|seconds| seconds.clamp(1, MAX_WAIT)),
        }
    })
}

async fn show(State(app): State<App>, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Error> {
    let prediction = app.service.get(&id).await?.ok_or(Error::Unknown(id))?;
    Ok(Json(app.view.of(&prediction, &app.base(&headers), Pictures::Whole)).into_response())
}

/// Cancels a prediction, and shows it; one that has ended stays as it is.
async fn cancel(State(app): State<App>, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Error> {
    let ticket = app.service.join(&id).await?;
    if app.service.cancel(&id).await?
        && let Some(mut ticket) = ticket
    {
        _ = tokio::time::timeout(UNTIL_CANCELED, ticket.end()).await;
    }
    show(State(app), Path(id), headers).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_wait_as_long_as_they_say() {
        let read =
            |value: &str| wait_of(&HeaderMap::from_iter([(HeaderName::from_static("prefer"), value.parse().unwrap())]));
        for (value, seconds) in [
            ("wait", Some(60)),
            ("wait=5", Some(5)),
            ("Wait = \"7\"", Some(7)),
            ("wait=0", Some(1)),
            ("wait=120", Some(60)),
            ("respond-async, wait=3", Some(3)),
            ("wait=x", None),
            ("respond-async", None),
            ("waiting=5", None),
        ] {
            assert_eq!(read(value), seconds, "{value}");
        }
        assert_eq!(wait_of(&HeaderMap::new()), None);
    }
}
