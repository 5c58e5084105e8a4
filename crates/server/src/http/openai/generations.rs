//! POST `/v1/images/generations`.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use prediction::shown::shown_up_to;
use prediction::webhook::{EventKind, Webhook};
use tracing::Span;

use super::answer::answer;
use super::errors::Fault;
use super::jobs::{self, Jobs, Name};
use super::request::Asked;
use super::stream;
use crate::http::accept;
use crate::http::common::{self, Order, Raw};
use crate::http::error::Error;
use crate::http::head::Head;
use crate::http::state::App;

pub(super) async fn create(
    State(app): State<App>,
    Extension(jobs): Extension<Jobs>,
    head: Head,
    body: Raw,
) -> Result<Response, Fault> {
    // Until a worker has loaded, the model is unknown, and so is whether the request is valid.
    app.service.readiness().map_err(Error::from)?;
    let name = Name::of(&head.caller, &head.headers, "/v1/images/generations", &body.bytes);
    let geometry = app.service.geometry();
    let ours = app.view.model.clone();
    let mut asked = body.parse(move |bytes| Asked::read(bytes, geometry, &ours)).await?;
    if let Some(asker) = &asked.shape.asker {
        tracing::info!(user = %shown_up_to(asker, 100), "pictures are asked for");
    }
    if !asked.unknown.is_empty() {
        tracing::warn!(fields = ?asked.unknown, "Stripped unknown input fields");
    }
    let known = if asked.stream || !jobs::repeats(&head.headers) { None } else { jobs.join(name) };
    let job = if let Some(job) = known {
        tracing::info!("a request that was repeated waits for its first job");
        job
    } else {
        let webhook = asked.webhook.as_deref().map(|url| {
            let events = EventKind::ALL.to_vec();
            let webhook = Webhook::new(url, events, accept::trace(&head.headers), app.service.gate());
            webhook.map_err(|refused| Fault::invalid("webhook", refused.to_string()))
        });
        let order = Order {
            input: asked.input.clone(),
            sent: std::mem::take(&mut asked.sent),
            wanted: asked.wanted,
            webhook: webhook.transpose()?,
            cancel_after: accept::cancel_after(&head.headers)?,
        };
        let ticket = order.submit(&app, &head).await?;
        Span::current().record("prediction_id", ticket.id());
        if asked.stream {
            return Ok(stream::events(app, ticket.follow(), asked));
        }
        jobs.begin(name, ticket)
    };
    Ok(common::answer(answer(app, job, asked.shape)).await)
}
