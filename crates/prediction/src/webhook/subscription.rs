//! What a client asks to be notified of: a URL and the events it wants. Stored with the prediction.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::outgoing::{Gate, Refused};
use crate::wire::Prediction;

/// Where the events of a prediction are sent. It is part of the stored record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The receiver. [`Gate::check`] accepted it when the prediction was made.
    pub url: String,
    /// The events that are sent.
    pub events: Vec<EventKind>,
    /// `traceparent` and `tracestate` of the request, so that the receiver's spans join the client's trace.
    pub trace: Vec<(String, String)>,
    /// Whether its bodies are those of [`Translate`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub translated: bool,
}

/// Writes the bodies of webhooks for clients of another API than Cog's.
pub trait Translate: fmt::Debug + Send + Sync {
    /// The prediction as JSON.
    ///
    /// # Errors
    /// If JSON cannot represent it.
    fn translate(&self, prediction: &Prediction) -> serde_json::Result<Vec<u8>>;
}

/// The events of a webhook, by the names of Cog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A worker has begun.
    Start,
    /// There is a picture.
    Output,
    /// The logs grew.
    Logs,
    /// The prediction has ended.
    Completed,
}

impl EventKind {
    /// All events: what is sent when a request names none.
    pub const ALL: [Self; 4] = [Self::Start, Self::Output, Self::Logs, Self::Completed];
}

impl Webhook {
    /// A webhook to a URL that the gate accepts.
    ///
    /// # Errors
    /// Why the URL is not called.
    pub fn new(url: &str, events: Vec<EventKind>, trace: Vec<(String, String)>, gate: &Gate) -> Result<Self, Refused> {
        gate.check(url)?;
        Ok(Self { url: url.to_owned(), events, trace, translated: false })
    }

    /// The same for a client of another API, see [`Translate`].
    #[must_use]
    pub fn translated(self) -> Self {
        Self { translated: true, ..self }
    }

    /// Whether an event is sent.
    pub fn wants(&self, kind: EventKind) -> bool {
        self.events.contains(&kind)
    }
}
