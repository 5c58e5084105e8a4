//! Where pictures go: into the response, to a URL of this server, or to another server; and the retries of an upload.
//!
//! - `put`: the two kinds of upload that Cog has;
//! - [`bucket`]: the bucket of an S3-compatible store.

pub mod bucket;
mod failure;
mod put;

use std::sync::Arc;
use std::time::Duration;

use http_client::{Retries, RetryPolicy};
use metrics::counter;
use protocol::Format;
use tokio::time::sleep;

use crate::outgoing::{Gate, Refused};
use crate::output;
use crate::redacted::Redacted;
use crate::shown::shown;
use bucket::Bucket;
use put::Putter;

/// How often a picture is sent.
const RETRIES: RetryPolicy = RetryPolicy {
    max_attempts: 3,
    first_wait: Duration::from_millis(500),
    max_wait: Duration::from_secs(10),
    jitter: 0.0,
    max_retry_after: Duration::MAX,
};

/// What the output of a prediction is.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// The picture itself, as a data URI.
    #[default]
    DataUri,
    /// A URL of this server.
    Files,
    /// The URL that a receiver gives it, which it is PUT to.
    Receiver(Redacted),
    /// A URL of a bucket.
    Bucket(bucket::Options),
}

/// Pictures cannot be sent where they are to go.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The URL for pictures is not valid.
    #[error("`--upload-url`: {0}")]
    UploadUrl(Refused),
    /// The bucket cannot be used.
    #[error("`--output`: {0}")]
    Bucket(String),
    /// An HTTP client cannot be made.
    #[error("cannot set up the upload of pictures: {0}")]
    Client(#[from] reqwest::Error),
}

/// Where one picture goes.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Into the response.
    DataUri,
    /// Into the store, under a name.
    File,
    /// To another server.
    Send(Target),
}

/// Where a picture is uploaded to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The receiver of all pictures; it chooses their names.
    Receiver(Redacted),
    /// The URL that a request makes of this prefix and the name of the picture.
    Form(String),
    /// A bucket.
    Bucket(Arc<Bucket>),
}

/// Uploads pictures.
#[derive(Debug)]
pub(crate) struct Uploader {
    putter: Putter,
    usual: Way,
}

/// Checks the URL that an `output_file_prefix` makes.
///
/// # Errors
/// Why the gate does not accept it.
pub fn check_prefix(prefix: &str, gate: &Gate) -> Result<(), Refused> {
    // With the longest of its names, so that no picture finds its URL too long.
    gate.check(&format!("{prefix}{}", put::name(Format::Webp, Some(u32::MAX)))).map(drop)
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

    /// Where the picture of a request goes.
    pub(crate) fn way(&self, output_file_prefix: Option<&str>) -> Way {
        output_file_prefix.map_or_else(|| self.usual.clone(), |prefix| Way::Send(Target::Form(prefix.to_owned())))
    }

    /// Uploads a picture, which has a number if there are several, and returns its URL. Transient failures are tried
    /// again.
    ///
    /// # Errors
    /// In Cog's words.
    pub(crate) async fn send(
        &self,
        to: &Target,
        id: &str,
        picture: &Arc<[u8]>,
        number: Option<u32>,
    ) -> Result<Arc<str>, String> {
        let name = put::name(output::format(picture), number);
        let mut retries = Retries::new(RETRIES);
        loop {
            let sent = match to {
                Target::Receiver(url) => self.putter.plain(url, &name, id, picture).await,
                Target::Form(prefix) => self.putter.form(prefix, &name, id, picture).await,
                Target::Bucket(bucket) => bucket.put(picture).await,
            };
            let failure = match sent {
                Ok(url) => {
                    count("delivered");
                    return Ok(url);
                }
                Err(failure) => failure,
            };
            let wait = retries.next_wait(&failure);
            let (why, attempt) = (failure.error, retries.failed());
            tracing::warn!(prediction_id = ?id, attempt, why = %shown(&why), "an upload failed");
            let Some(wait) = wait else {
                count("failed");
                return Err(format!("Failed to upload output: {why}"));
            };
            count("retried");
            sleep(wait).await;
        }
    }
}

/// Counts what came of an attempt.
fn count(result: &'static str) {
    counter!("syncdiffusion_uploads_total", "result" => result).increment(1);
}
