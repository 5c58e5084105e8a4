//! Where pictures go: into the answer, to a URL of this server, or away, and what is tried when sending one fails.
//!
//! - `put`: the two ways of Cog;
//! - [`bucket`]: a store that speaks S3.

pub mod bucket;
mod put;

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::sleep;

use crate::hidden::Hidden;
use crate::outgoing::{Gate, Refused};
use bucket::Bucket;
use put::Putter;

/// How often sending is tried.
const ATTEMPTS: u32 = 3;
/// The wait after the first attempt; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// What predictions give out.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// The picture itself, as a data URI.
    #[default]
    DataUri,
    /// A URL of this server.
    Files,
    /// The URL that a receiver gives it, which it is PUT to.
    Receiver(Hidden),
    /// A URL of a bucket.
    Bucket(bucket::Options),
}

/// There is no way to a place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The URL for pictures is none.
    #[error("`--upload-url`: {0}")]
    UploadUrl(Refused),
    /// The bucket cannot be used.
    #[error("`--output`: {0}")]
    Bucket(String),
    /// There can be no HTTP client.
    #[error("cannot set up the sending of pictures: {0}")]
    Client(#[from] reqwest::Error),
}

/// The way of one picture.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Into the answer.
    DataUri,
    /// Into the store, under a name.
    File,
    /// Away.
    Send(Target),
}

/// Whom a picture is sent to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The receiver of all pictures; it names them.
    Receiver(Hidden),
    /// Where a request wants it; the URL names it.
    Form(String),
    /// A bucket.
    Bucket(Arc<Bucket>),
}

/// Why an attempt failed, and whether another is worth it.
#[derive(Debug)]
pub(crate) struct Failure {
    again: bool,
    why: String,
}

/// Sends pictures.
#[derive(Debug)]
pub(crate) struct Uploader {
    putter: Putter,
    usual: Way,
}

/// The URL that an `output_file_prefix` makes, if the gate lets it through.
///
/// # Errors
/// Why it does not.
pub fn check_prefix(prefix: &str, gate: &Gate) -> Result<(), Refused> {
    gate.check(&put::form_url(prefix)).map(drop)
}

impl Uploader {
    pub(crate) fn new(place: &Place, gate: &Gate) -> Result<Self, PlaceError> {
        let usual = match place {
            Place::DataUri => Way::DataUri,
            Place::Files => Way::File,
            Place::Receiver(url) => Way::Send(Target::Receiver(put::receiver_url(url).map_err(PlaceError::UploadUrl)?)),
            Place::Bucket(options) => {
                Way::Send(Target::Bucket(Arc::new(Bucket::new(options).map_err(PlaceError::Bucket)?)))
            }
        };
        Ok(Self { putter: Putter::new(gate)?, usual })
    }

    /// The way of the picture of a request.
    pub(crate) fn way(&self, output_file_prefix: Option<&str>) -> Way {
        output_file_prefix.map_or_else(|| self.usual.clone(), |prefix| Way::Send(Target::Form(put::form_url(prefix))))
    }

    /// Sends a PNG and gives its URL. Failures that may pass are tried again.
    ///
    /// # Errors
    /// In Cog's words.
    pub(crate) async fn send(&self, to: &Target, id: &str, png: &Arc<[u8]>) -> Result<Arc<str>, String> {
        for attempt in 1.. {
            let sent = match to {
                Target::Receiver(url) => self.putter.plain(url, id, png).await,
                Target::Form(url) => self.putter.form(url, id, png).await,
                Target::Bucket(bucket) => bucket.put(png).await,
            };
            let Failure { again, why } = match sent {
                Ok(url) => {
                    count("delivered");
                    return Ok(url);
                }
                Err(failure) => failure,
            };
            tracing::warn!(prediction_id = %id, attempt, %why, "an upload failed");
            if !again || attempt == ATTEMPTS {
                count("failed");
                return Err(format!("Failed to upload output: {why}"));
            }
            count("retried");
            sleep(FIRST_WAIT * 2u32.pow(attempt - 1)).await;
        }
        unreachable!("the last attempt returns")
    }
}

/// Counts what came of an attempt.
fn count(result: &'static str) {
    counter!("syncdiffusion_uploads_total", "result" => result).increment(1);
}
