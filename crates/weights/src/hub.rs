//! A hub with the API of Hugging Face: what it lists of a repository, and its files.
//!
//! What always holds: the token goes to the endpoint's own host and to no other, whoever redirects there; every wait
//! and every number of attempts has a bound.
//!
//! Not the crate `hf-hub`: it keeps a cache of its own, and a bundle is resumed and verified by its lock instead.

use std::time::Duration;

use http_client::{Retries, RetryPolicy, USER_AGENT, reason, retry_after};
use reqwest::header::{CONTENT_RANGE, HeaderMap, LOCATION, RANGE};
use reqwest::{Client, Response, StatusCode, redirect};
use serde::Deserialize;
use url::Url;

use crate::error::{At, Error, Result};
use crate::hash::Hash;
use crate::listing::{Listed, Listing};
use crate::plan::{File, host};
use crate::progress::{Progress, ProgressEvent};
use crate::source::Source;

/// The hub if none is named.
pub const ENDPOINT: &str = "https://huggingface.co";
/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// How often a hub is tried, unless the caller says otherwise.
pub const RETRIES: RetryPolicy = RetryPolicy {
    max_attempts: 6,
    first_wait: Duration::from_secs(1),
    max_wait: Duration::from_mins(1),
    jitter: 0.0,
    max_retry_after: Duration::from_mins(10),
};
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_mins(1);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(30);

/// A hub.
#[derive(Clone, Debug)]
pub struct Hub {
    client: Client,
    endpoint: Url,
    token: Option<String>,
    pub(crate) retries: RetryPolicy,
}

/// A failed attempt at something that a hub is asked for.
pub(crate) type Failure = http_client::Failure<Error>;

/// An error is permanent, unless it is said to be transient.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::permanent(error)
    }
}

/// Waits for the next attempt, or gives up.
pub(crate) async fn wait(retries: &mut Retries, failure: Failure, progress: &dyn Progress) -> Result<()> {
    let Some(wait) = retries.next_wait(&failure) else { return Err(failure.error) };
    let text = failure.error.to_string();
    let short = text.split(';').next().unwrap_or_default();
    progress.report(ProgressEvent::Note(&format!("{short}; trying again in {:.0} s", wait.as_secs_f64().ceil())));
    tokio::time::sleep(wait).await;
    Ok(())
}

/// What is asked for, for error messages.
struct Asked<'a> {
    endpoint: &'a Url,
    repo: &'a str,
    revision: &'a str,
    file: Option<&'a str>,
}

impl Asked<'_> {
    fn at(&self, url: &Url) -> At {
        let file = self.file.unwrap_or("the list of files").to_owned();
        At { repo: self.repo.to_owned(), file, host: host(url) }
    }

    fn unreachable(&self, url: &Url, why: String) -> Failure {
        Failure::transient(Error::Unreachable { at: self.at(url).into(), why })
    }

    fn answer(&self, url: &Url, what: String) -> Error {
        Error::Answer { at: self.at(url).into(), what }
    }
}

impl Hub {
    /// A hub at a URL such as [`ENDPOINT`].
    ///
    /// # Errors
    /// If the URL is malformed, or an HTTP client cannot be made.
    pub fn new(endpoint: &str, token: Option<String>, retries: RetryPolicy) -> Result<Self> {
        let wrong = |why: &str| Error::Endpoint { text: endpoint.to_owned(), why: why.to_owned() };
        let url = Url::parse(endpoint).map_err(|e| wrong(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong("only `http` and `https` are supported"));
        }
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(|e| Error::Client(reason(e)))?;
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Ok(Self { client, endpoint: url, token, retries })
    }

    /// What a source holds. Its revision is resolved to a commit, so that all files are of one state of the repository.
    ///
    /// # Errors
    /// If the hub does not answer, or not with a list; see [`Error`].
    pub async fn listing(&self, source: &Source, progress: &dyn Progress) -> Result<Listing> {
        let mut retries = Retries::new(self.retries);
        loop {
            match self.list(source).await {
                Ok(listing) => return Ok(listing),
                Err(failure) => wait(&mut retries, failure, progress).await?,
            }
        }
    }

    async fn list(&self, source: &Source) -> Result<Listing, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
            size: Option<u64>,
            #[serde(rename = "blobId")]
            blob: Option<String>,
            lfs: Option<Lfs>,
        }
        #[derive(Deserialize)]
        struct Lfs {
            sha256: String,
            size: u64,
        }
        let endpoint = source.endpoint.as_ref().unwrap_or(&self.endpoint);
        let asked = Asked { endpoint, repo: &source.repo, revision: &source.revision, file: None };
        let names = ["api", "models"].into_iter().chain(source.repo.split('/'));
        let mut url = under(endpoint, names.chain(["revision", source.revision.as_str()]));
        url.set_query(Some("blobs=true"));
        let (response, _) = self.get(url.clone(), 0, &asked).await?;
        let text = response.bytes().await.map_err(|e| asked.unreachable(&url, reason(e)))?;
        let answer: Answer = serde_json::from_slice(&text)
            .map_err(|e| asked.answer(&url, format!("something that is not a list of files ({e})")))?;
        let files = answer.siblings.into_iter().filter_map(|file| {
            let listed = match (file.lfs, file.size, file.blob) {
                (Some(lfs), ..) => Listed { size: lfs.size, hash: Hash::Sha256(lfs.sha256.to_ascii_lowercase()) },
                (None, Some(size), Some(blob)) => Listed { size, hash: Hash::Git(blob.to_ascii_lowercase()) },
                // Without size and hash a file cannot be checked, so it counts as missing.
                _ => return None,
            };
            Some((file.rfilename, listed))
        });
        Ok(Listing { source: source.clone(), endpoint: endpoint.clone(), commit: answer.sha, files: files.collect() })
    }

    /// Opens a file at an offset. True if the response begins there, false if it is the whole file.
    pub(crate) async fn open(&self, file: &File, offset: u64) -> Result<(Response, bool), Failure> {
        let origin = &file.origin;
        let asked =
            Asked { endpoint: &file.endpoint, repo: &origin.repo, revision: &origin.commit, file: Some(&origin.path) };
        let names = origin.repo.split('/').chain(["resolve", origin.commit.as_str()]).chain(origin.path.split('/'));
        let (response, linked) = self.get(under(&file.endpoint, names), offset, &asked).await?;
        // Known before gigabytes have been received, not after.
        if let (Some(found), Hash::Sha256(expected)) = (linked, &origin.hash)
            && found != *expected
        {
            return Err(file.mismatch(Hash::Sha256(found)).into());
        }
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let begins = format!("bytes {offset}-");
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
        if partial && !range.starts_with(&begins) {
            let what = format!("a range that was not asked for (`{range}`)");
            return Err(Failure::transient(asked.answer(response.url(), what)));
        }
        Ok((response, partial))
    }

    /// Sends a request, follows redirects, and turns what is not a success into an error. Returns the hash that the hub
    /// itself gives, too.
    async fn get(&self, url: Url, offset: u64, asked: &Asked<'_>) -> Result<(Response, Option<String>), Failure> {
        let mut url = url;
        let mut linked = None;
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.client.get(url.clone());
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            if let Some(token) = self.token_for(&url) {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.map_err(|e| asked.unreachable(&url, reason(e)))?;
            linked = linked.or_else(|| linked_hash(response.headers()));
            let status = response.status();
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            if status.is_success() {
                return Ok((response, linked));
            }
            let (true, Some(location)) = (status.is_redirection(), location) else {
                return Err(self.refusal(&response, asked));
            };
            let next = url.join(location).map_err(|e| asked.answer(&url, format!("a redirect to nowhere ({e})")))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(asked.answer(&url, format!("a redirect to `{}`, without encryption", host(&next))).into());
            }
            url = next;
        }
        Err(asked.answer(&url, format!("more than {MAX_REDIRECTS} redirects")).into())
    }

    /// The token, if this is where it belongs.
    fn token_for(&self, url: &Url) -> Option<&str> {
        self.token.as_deref().filter(|_| url.origin() == self.endpoint.origin())
    }

    fn refusal(&self, response: &Response, asked: &Asked<'_>) -> Failure {
        let (status, url) = (response.status(), response.url());
        let own = url.origin() == asked.endpoint.origin();
        let page = under(asked.endpoint, asked.repo.split('/')).to_string();
        let at = asked.at(url).into();
        match status.as_u16() {
            // Elsewhere these mean that a signed address has expired; the hub makes a new one.
            status @ (401 | 403) if own => {
                let hint = if self.token_for(asked.endpoint).is_some() {
                    format!("the token in HF_TOKEN has no access; accept the licence on {page} with its account")
                } else if self.token.is_some() {
                    format!("HF_TOKEN is sent to {} only; set HF_ENDPOINT to the hub that it is for", self.endpoint)
                } else {
                    format!("set HF_TOKEN to a token and accept the licence on {page}, if there is such a page")
                };
                Error::Denied { at, status, hint }.into()
            }
            404 | 410 if own => {
                let revision = asked.revision;
                let what = match asked.file {
                    Some(file) => format!("file `{file}` at `{revision}`"),
                    None => format!("revision `{revision}`, or does not exist"),
                };
                Error::NotFound { page, what }.into()
            }
            429 => {
                let after = retry_after(response.headers());
                Failure { error: Error::TooMany { at, wait: after }, transient: true, retry_after: after }
            }
            code => {
                let error = asked.answer(url, status.to_string());
                let transient = matches!(code, 408 | 500..) || !own;
                Failure { error, transient, retry_after: retry_after(response.headers()).filter(|_| transient) }
            }
        }
    }
}

/// `endpoint/name/name`, each name encoded.
fn under<'a>(endpoint: &Url, names: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = endpoint.clone();
    // Only URLs without a host have no segments, and those are not accepted as endpoints.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(names);
    }
    url
}

/// The SHA-256 of the file behind a redirect, which a hub gives in a header.
fn linked_hash(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get("x-linked-etag")?.to_str().ok()?;
    let tag = tag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
    (tag.len() == 64 && tag.chars().all(|c| c.is_ascii_hexdigit())).then_some(tag)
}

/// For a connection that broke while a file was received.
pub(crate) fn broken(file: &File, why: String) -> Failure {
    let origin = &file.origin;
    let asked =
        Asked { endpoint: &file.endpoint, repo: &origin.repo, revision: &origin.commit, file: Some(&origin.path) };
    asked.unreachable(&file.endpoint, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_and_endpoints_may_have_a_path() {
        let url = |endpoint: &str| under(&Url::parse(endpoint).unwrap(), ["a", "refs/pr/1"]).to_string();
        assert_eq!(url("https://hub"), "https://hub/a/refs%2Fpr%2F1");
        assert_eq!(url("https://proxy/hub/"), "https://proxy/hub/a/refs%2Fpr%2F1");
    }
}
