//! Pictures that are asked for together: one prediction.

use std::sync::Arc;
use std::time::Duration;

use prediction::given_pictures::Fitting;
use prediction::input::Sent;
use prediction::output::Wanted;
use prediction::service::{Request, Submitted, Ticket};
use prediction::store::Key;
use prediction::webhook::Webhook;
use prediction::{Prediction, Status};
use protocol::Input;
use tokio::time::sleep;
use tracing::Span;

use crate::http::error::Error;
use crate::http::head::Head;
use crate::http::state::App;
use crate::telemetry;

/// How often a prediction is looked at that another process draws.
const AGAIN: Duration = Duration::from_millis(500);

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
    /// Its `Idempotency-Key`.
    pub(crate) key: Option<Key>,
    /// Who asks for it, where callers are shown the newest of what they asked for.
    pub(crate) asker: Option<String>,
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
    /// Has it accepted. It stops when the ticket is dropped, unless it has a key: whoever sent it comes back for it.
    pub(crate) async fn submit(self, app: &App, head: &Head) -> Result<Submitted, Error> {
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
            detached: self.key.is_some(),
            idempotent: false,
            key: self.key,
            asker: self.asker,
            span: telemetry::prediction(&head.request_id.0),
        };
        let submitted = app.service.submit(request).await?;
        Span::current().record("prediction_id", id(&submitted));
        Ok(submitted)
    }
}

/// The id of what was submitted.
pub(crate) fn id(submitted: &Submitted) -> &str {
    match submitted {
        Submitted::New(ticket) => ticket.id(),
        Submitted::Live(known) | Submitted::Ended(known) => &known.id,
    }
}

/// Waits for the end of what was submitted, or found by its key, which another process may be drawing.
///
/// # Errors
/// If it cannot be read, or was removed.
pub(crate) async fn ended(app: &App, submitted: Submitted) -> Result<Ended, Error> {
    let known = match submitted {
        Submitted::New(mut ticket) => return Ok(end(&mut ticket).await),
        Submitted::Ended(known) => return Ok(Ended::of(Arc::from(known))),
        Submitted::Live(known) => known,
    };
    tracing::info!("a request that was repeated waits for its prediction");
    loop {
        if let Some(mut ticket) = app.service.join(&known.id).await? {
            return Ok(end(&mut ticket).await);
        }
        match app.service.get(&known.id).await? {
            Some(prediction) if prediction.status.is_terminal() => return Ok(Ended::of(Arc::new(prediction))),
            Some(_) if app.over.run_until_cancelled(sleep(AGAIN)).await.is_none() => return Ok(Ended::Left),
            Some(_) => {}
            None => return Err(Error::Unknown(known.id)),
        }
    }
}

impl Ended {
    fn of(prediction: Arc<Prediction>) -> Self {
        if prediction.status == Status::Succeeded { Self::Done(prediction) } else { Self::Failed(prediction) }
    }
}

/// Waits for the end.
pub(crate) async fn end(ticket: &mut Ticket) -> Ended {
    if let Some(prediction) = ticket.end().await {
        return Ended::of(prediction);
    }
    ticket.detach();
    Ended::Left
}
