//! Telling a client what happens, as Cog does: the events start, output, logs and completed, each a POST of the whole prediction, signed
//! as Replicate signs.
//!
//! - [`signature`]: the secret and what is made with it;
//! - `courier`: what is sent when, and how often it is tried;
//! - `carrier`: one attempt over HTTP, and what its answer means.

mod carrier;
mod courier;
pub mod signature;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use courier::Courier;

use crate::hidden::Hidden;
use crate::outgoing::{Gate, Refused};

/// Whom to tell what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where to POST.
    pub url: String,
    /// Which events.
    pub events: Vec<Kind>,
    /// `traceparent` and `tracestate` of the request, passed on.
    pub trace: Vec<(String, String)>,
}

/// The events of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A worker began.
    Start,
    /// There is a picture.
    Output,
    /// The logs grew.
    Logs,
    /// It is over.
    Completed,
}

impl Kind {
    /// All of them: what is sent when no filter is given.
    pub const ALL: [Self; 4] = [Self::Start, Self::Output, Self::Logs, Self::Completed];
}

impl Webhook {
    /// A webhook to a URL that the gate lets through.
    ///
    /// # Errors
    /// Why it does not.
    pub fn new(url: &str, events: Vec<Kind>, trace: Vec<(String, String)>, gate: &Gate) -> Result<Self, Refused> {
        gate.check(url)?;
        Ok(Self { url: url.to_owned(), events, trace })
    }

    /// Whether an event is wanted.
    pub fn wants(&self, kind: Kind) -> bool {
        self.events.contains(&kind)
    }
}

/// How webhooks are sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Least time between two `logs` of a prediction.
    pub interval: Duration,
    /// Token that receivers are shown.
    pub token: Option<Hidden>,
    /// What they are signed with.
    pub secret: signature::Secret,
}
