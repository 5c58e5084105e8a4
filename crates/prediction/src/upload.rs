//! Sending pictures away, in the two ways of Cog: to `--upload-url`, where what the receiver calls the picture becomes the output, and
//! to the `output_file_prefix` of a request, as a form; there the output is that prefix and the name of the file.

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

/// Sends pictures.
#[derive(Debug)]
pub(crate) struct Uploader {
    client: Client,
    /// Where those are sent whose request says nothing.
    usual: Option<Target>,
}

/// Where a picture is sent, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// As it is; the receiver names it.
    Plain(String),
    /// As the file of a form; the URL names it.
    Form(String),
}

impl Uploader {
    pub(crate) fn new(upload_url: Option<&str>) -> Result<Self, reqwest::Error> {
        let plain = |url: &str| Target::Plain(format!("{url}{}{NAME}", if url.ends_with('/') { "" } else { "/" }));
        Ok(Self { client: Client::builder().timeout(TIMEOUT).build()?, usual: upload_url.map(plain) })
    }

    /// Where the picture of a request goes; `None` if nowhere.
    pub(crate) fn target(&self, output_file_prefix: Option<&str>) -> Option<Target> {
        output_file_prefix.map(|prefix| Target::Form(format!("{prefix}{NAME}"))).or_else(|| self.usual.clone())
    }

    /// Sends a PNG and gives its URL. Failures that may pass are tried again.
    ///
    /// # Errors
    /// In Cog's words.
    pub(crate) async fn send(&self, to: &Target, id: &str, png: &[u8]) -> Result<Arc<str>, String> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.once(to, id, png).await {
                Err(failure) if failure.again && attempt < ATTEMPTS => {
                    tracing::warn!(prediction_id = %id, attempt, why = %failure.why, "an upload failed");
                    sleep(FIRST_WAIT * 2u32.pow(attempt - 1)).await;
                }
                done => return done.map_err(|failure| format!("Failed to upload output: {}", failure.why)),
            }
        }
    }

    async fn once(&self, to: &Target, id: &str, png: &[u8]) -> Result<Arc<str>, Failure> {
        let request = match to {
            Target::Plain(url) => self.client.put(url).header(CONTENT_TYPE, "image/png").body(png.to_vec()),
            Target::Form(url) => {
                let boundary = uuid::Uuid::new_v4().simple().to_string();
                let kind = format!("multipart/form-data; boundary={boundary}");
                self.client.put(url).header(CONTENT_TYPE, kind).body(form(&boundary, png))
            }
        };
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
        if let Target::Form(url) = to {
            return Ok(url.as_str().into());
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

/// A form with the picture as its only field, `file`.
fn form(boundary: &str, png: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{NAME}\"\r\nContent-Type: image/png\r\n\r\n"
    );
    [head.as_bytes(), png, format!("\r\n--{boundary}--\r\n").as_bytes()].concat()
}

/// Why an attempt failed, and whether another is worth it.
struct Failure {
    again: bool,
    why: String,
}
