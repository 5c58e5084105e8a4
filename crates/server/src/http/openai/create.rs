//! What both routes for pictures do once their requests are read.

use axum::response::Response;
use prediction::service::Submitted;
use prediction::shown::shown_up_to;
use prediction::webhook::{EventKind, Webhook};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::answer::answer;
use super::errors::Fault;
use super::jobs::{self, Jobs, Name};
use super::request::Asked;
use super::route::Route;
use super::stream;
use crate::http::accept;
use crate::http::common::{self, Order};
use crate::http::head::Head;
use crate::http::idempotency;
use crate::http::state::App;

/// A request that was read.
pub(super) struct Read {
    pub(super) asked: Asked,
    /// A digest of what it says.
    pub(super) digest: [u8; 32],
}

impl Read {
    /// One that came as JSON.
    pub(super) fn json(bytes: &[u8], asked: Asked) -> Self {
        Self { asked, digest: Sha256::digest(bytes).into() }
    }
}

/// Asks for pictures, or joins those who wait for them, and answers.
pub(super) async fn create(
    app: App,
    jobs: Jobs,
    head: &Head,
    route: Route,
    (Read { mut asked, digest }, room): (Read, Option<OwnedSemaphorePermit>),
) -> Result<Response, Fault> {
    if let Some(asker) = &asked.shape.asker {
        tracing::info!(user = %shown_up_to(asker, 100), "pictures are asked for");
    }
    if !asked.unknown.is_empty() {
        tracing::warn!(fields = ?asked.unknown, "Stripped unknown input fields");
    }
    // Pictures take room until they are stored.
    let room = room.filter(|_| !asked.sent.is_empty());
    let key = idempotency::key(&head.headers, &head.caller, &digest)?;
    let name = Name::of(head, route.path(), &digest);
    if key.is_none()
        && !asked.stream
        && jobs::repeats(&head.headers)
        && let Some(job) = jobs.join(name)
    {
        tracing::info!("a request that was repeated waits for its first job");
        let outcome = async move { Ok(job.outcome().await) };
        return Ok(common::answer(answer(app, outcome, asked.shape)).await);
    }
    let webhook = asked.webhook.as_deref().map(|url| {
        let webhook = Webhook::new(url, EventKind::ALL.to_vec(), accept::trace(&head.headers), app.service.gate());
        webhook.map_err(|refused| Fault::invalid("webhook", refused.to_string()))
    });
    let order = Order {
        input: asked.input.clone(),
        sent: std::mem::take(&mut asked.sent),
        wanted: asked.wanted,
        fitting: asked.fitting,
        webhook: webhook.transpose()?,
        cancel_after: accept::cancel_after(&head.headers)?,
        key,
        asker: None,
    };
    let submitted = order.submit(&app, head).await.map_err(|error| asked.names.error(error))?;
    drop(room);
    match submitted {
        submitted if asked.stream => stream::events(app, submitted, route, asked).await,
        Submitted::New(ticket) if !ticket.is_detached() => {
            let job = jobs.begin(name, ticket);
            let outcome = async move { Ok(job.outcome().await) };
            Ok(common::answer(answer(app, outcome, asked.shape)).await)
        }
        submitted => {
            let waits = app.clone();
            let outcome = async move { Ok(common::ended(&waits, submitted).await?.into()) };
            Ok(common::answer(answer(app, outcome, asked.shape)).await)
        }
    }
}
