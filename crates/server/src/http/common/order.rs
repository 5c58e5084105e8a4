//! Pictures that are asked for together: one prediction.

use std::sync::Arc;
use std::time::Duration;

use prediction::given_pictures::Fitting;
use prediction::input::Sent;
use prediction::output::Wanted;
use prediction::service::{Request, Submitted, Ticket};
use prediction::webhook::Webhook;
use prediction::{Prediction, Status};
use protocol::Input;

use crate::http::error::Error;
use crate::http::head::Head;
use crate::http::state::App;
use crate::telemetry;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) input: Input,
    /// Pictures that came with it.
    pub(crate) sent: Sent,
    pub(crate) wanted: Wanted,
    pub(crate) fitting: Fitting,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) cancel_after: Option<Duration>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// It has its pictures.
    Done(Arc<Prediction>),
    /// It has none.
    Failed(Arc<Prediction>),
    /// It waits in the store for the next start of the server.
    Left,
}

impl Order {
    /// Has it accepted. It stops when the ticket is dropped.
    pub(crate) async fn submit(self, app: &App, head: &Head) -> Result<Ticket, Error> {
        let request = Request {
            id: None,
            name: head.token.0.to_string(),
            input: self.input,
            sent: self.sent,
            webhook: self.webhook,
            output_file_prefix: None,
            wanted: self.wanted,
            fitting: self.fitting,
            base: app.base(&head.headers),
            cancel_after: self.cancel_after,
            detached: false,
            idempotent: false,
            key: None,
            span: telemetry::prediction(&head.request_id.0),
        };
        match app.service.submit(request).await? {
            Submitted::New(ticket) => Ok(ticket),
            // An id that is made up is new.
            Submitted::Live(known) | Submitted::Ended(known) => Err(Error::Unknown(known.id)),
        }
    }
}

/// Waits for the end.
pub(crate) async fn end(ticket: &mut Ticket) -> Ended {
    match ticket.end().await {
        Some(prediction) if prediction.status == Status::Succeeded => Ended::Done(prediction),
        Some(prediction) => Ended::Failed(prediction),
        None => {
            ticket.detach();
            Ended::Left
        }
    }
}
