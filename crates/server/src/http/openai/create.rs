//! What both routes for pictures do once their requests are read.

use axum::response::Response;
use prediction::shown::shown_up_to;
use prediction::webhook::{EventKind, Webhook};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;

use super::answer::answer;
use super::errors::Fault;
use super::jobs::{self, Jobs, Name};
use super::request::Asked;
use super::route::Route;
use super::stream;
use crate::http::accept;
use crate::http::common::{self, Order};
use crate::http::head::Head;
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
    let name = Name::of(head, route.path(), &digest);
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
            fitting: asked.fitting,
            webhook: webhook.transpose()?,
            cancel_after: accept::cancel_after(&head.headers)?,
        };
        let ticket = order.submit(&app, head).await?;
        drop(room);
        Span::current().record("prediction_id", ticket.id());
        if asked.stream {
            return Ok(stream::events(app, ticket.follow(), route, asked));
        }
        jobs.begin(name, ticket)
    };
    Ok(common::answer(answer(app, job, asked.shape)).await)
}
