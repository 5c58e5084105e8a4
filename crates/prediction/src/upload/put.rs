//! The two kinds of upload that Cog has: to `--upload-url`, where the receiver's name of the picture becomes the
//! output; and to the `output_file_prefix` of a request, as a form, where the output is that prefix and the name of the
//! file.
//!
//! The first URL is the operator's and is called wherever it leads. The second is a client's and passes the [`Gate`].

use std::sync::Arc;
use std::time::Duration;

use http_client::{has_cause, reason};
use protocol::Format;
use reqwest::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Client, RequestBuilder, Response, Url};

use super::failure::Failure;
use crate::outgoing::{Gate, Refused};
use crate::output;
use crate::redacted::Redacted;

/// How long an upload may take, as Cog has it.
const TIMEOUT: Duration = Duration::from_secs(25);
/// The name of a picture, as the hosted model has it, with its number if there are several; `x-prediction-id` tells the
/// receiver which prediction it is of.
pub(super) fn name(format: Format, number: Option<u32>) -> String {
    let number = number.map_or_else(String::new, |number| format!("-{number}"));
    format!("output{number}.{}", format.extension())
}

/// PUTs pictures.
#[derive(Debug)]
pub(super) struct Putter {
    trusted: Client,
    guarded: Client,
    gate: Gate,
}

/// The URL below which pictures are at `--upload-url`.
pub(super) fn receiver_url(url: &Redacted) -> Result<Redacted, Refused> {
    let parsed = Url::parse(url.reveal()).map_err(Refused::NotAUrl)?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(Refused::Scheme(parsed.scheme().to_owned()));
    }
    let url = url.reveal();
    Ok(format!("{url}{}", if url.ends_with('/') { "" } else { "/" }).into())
}

impl Putter {
    pub(super) fn new(gate: &Gate) -> Result<Self, reqwest::Error> {
        let trusted = Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self { trusted, guarded: gate.following_client(TIMEOUT)?, gate: gate.clone() })
    }

    /// Sends a picture as it is. Returns the URL that the receiver names, or else the last one that was called.
    pub(super) async fn plain(
        &self,
        url: &Redacted,
        name: &str,
        id: &str,
        picture: &Arc<[u8]>,
    ) -> Result<Arc<str>, Failure> {
        let request = self.trusted.put(format!("{}{name}", url.reveal()));
        let request = request.header(CONTENT_TYPE, output::format(picture).media()).body(picture.to_vec());
        let response = send(request, id).await?;
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let mut url = match location {
            None => response.url().clone(),
            Some(location) => response.url().join(location).unwrap_or_else(|_| response.url().clone()),
        };
        // Credentials and signatures are for the upload, not for those who read the prediction.
        url.set_query(None);
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(url.as_str().into())
    }

    /// Sends a picture as the file of a form. Returns its URL.
    pub(super) async fn form(
        &self,
        prefix: &str,
        name: &str,
        id: &str,
        picture: &Arc<[u8]>,
    ) -> Result<Arc<str>, Failure> {
        let url = format!("{prefix}{name}");
        // It may have been stored when other addresses were allowed.
        let checked = self.gate.check(&url).map_err(|refused| Failure::permanent(refused.to_string()))?;
        let boundary = uuid::Uuid::new_v4().simple().to_string();
        let kind = format!("multipart/form-data; boundary={boundary}");
        let request = self.guarded.put(checked).header(CONTENT_TYPE, kind).body(form(&boundary, name, picture));
        send(request, id).await.map(|_| url.into())
    }
}

/// Sends a request, and judges its answer.
async fn send(request: RequestBuilder, id: &str) -> Result<Response, Failure> {
    // An id that cannot be a header value is left out rather than refused.
    let request = match HeaderValue::from_str(id) {
        Ok(id) => request.header("x-prediction-id", id),
        Err(_) => request,
    };
    let response = request.send().await.map_err(|error| {
        let transient = !has_cause::<Refused>(&error);
        let why = if error.is_timeout() {
            "upload request timed out".to_owned()
        } else {
            format!("upload request failed: {}", reason(error))
        };
        Failure { error: why, transient, retry_after: None }
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let transient = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
    Err(Failure { error: format!("upload returned status {status}"), transient, retry_after: None })
}

/// A form with the picture as its only field, `file`.
fn form(boundary: &str, name: &str, picture: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {}\r\n\r\n",
        output::format(picture).media()
    );
    [head.as_bytes(), picture, format!("\r\n--{boundary}--\r\n").as_bytes()].concat()
}
