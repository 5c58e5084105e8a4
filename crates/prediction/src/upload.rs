//! Sending pictures where Cog's `--upload-url` says: PUT to the URL and a file name; what the receiver calls the picture becomes the output.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, Url};
use tokio::time::sleep;

/// How long an upload may take, as Cog has it.
const TIMEOUT: Duration = Duration::from_secs(25);
/// How often it is tried.
const ATTEMPTS: u32 = 3;
/// The wait after the first attempt; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The name of every picture, as the hosted model has it; the receiver tells them apart by `x-prediction-id`.
const NAME: &str = "output.png";

/// Sends pictures to one place.
#[derive(Clone, Debug)]
pub(crate) struct Uploader {
    client: Client,
    url: String,
}

impl Uploader {
    pub(crate) fn new(url: &str) -> Result<Self, reqwest::Error> {
        let slash = if url.ends_with('/') { "" } else { "/" };
        Ok(Self { client: Client::builder().timeout(TIMEOUT).build()?, url: format!("{url}{slash}{NAME}") })
    }

    /// Sends a PNG and gives its URL. Failures that may pass are tried again.
    ///
    /// # Errors
    /// In Cog's words.
    pub(crate) async fn send(&self, id: &str, png: &Arc<[u8]>) -> Result<Arc<str>, String> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.once(id, png).await {
                Err(failure) if failure.again && attempt < ATTEMPTS => {
                    tracing::warn!(prediction_id = %id, attempt, why = %failure.why, "an upload failed");
                    sleep(FIRST_WAIT * 2u32.pow(attempt - 1)).await;
                }
                done => return done.map_err(|failure| format!("Failed to upload output: {}", failure.why)),
            }
        }
    }

    async fn once(&self, id: &str, png: &Arc<[u8]>) -> Result<Arc<str>, Failure> {
        let request = self.client.put(&self.url).header(CONTENT_TYPE, "image/png").body(png.to_vec());
        // An id that is no header value is left out rather than refused.
        let request = match reqwest::header::HeaderValue::from_str(id) {
            Ok(id) => request.header("x-prediction-id", id),
            Err(_) => request,
        };
        let response = request.send().await.map_err(|error| {
            let timed_out = error.is_timeout();
            let error = error.without_url();
            let why = if timed_out {
                "upload request timed out".to_owned()
            } else {
                format!("upload request failed: {error}")
            };
            Failure { again: true, why }
        })?;
        let status = response.status();
        if !status.is_success() {
            let again = status.is_server_error() || status.as_u16() == 429;
            return Err(Failure { again, why: format!("upload returned status {status}") });
        }
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let mut url = match location {
            None => response.url().clone(),
            Some(location) => response.url().join(location).unwrap_or_else(|_| response.url().clone()),
        };
        // Signatures in a query are for the upload, not for whoever reads the prediction.
        Url::set_query(&mut url, None);
        Ok(url.as_str().into())
    }
}

/// Why an attempt failed, and whether another is worth it.
struct Failure {
    again: bool,
    why: String,
}
