//! A hub in the manner of Hugging Face: what it tells of a repository, and its files.
//!
//! What always holds: the token goes to the endpoint's own host and to no other, whoever redirects there; every wait and
//! every number of attempts has a bound.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::iter;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use serde::Deserialize;
use url::Url;

use crate::error::host;
use crate::plan::File;
use crate::{Error, Hash, News, Progress, Result, Source};

/// The hub that is meant when none is named.
pub const ENDPOINT: &str = "https://huggingface.co";
/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// The longest wait that we choose ourselves.
const LONGEST_STEP: Duration = Duration::from_mins(1);

/// How long to keep trying.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts in a row that bring nothing.
    pub attempts: u32,
    /// The wait after the first of them; each is twice the one before.
    pub first_wait: Duration,
    /// The longest wait that a hub may ask for.
    pub longest_wait: Duration,
    /// How long a connection may be silent.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_mins(10),
            silence: Duration::from_mins(1),
        }
    }
}

/// A hub.
#[derive(Clone, Debug)]
pub struct Hub {
    client: Client,
    endpoint: Url,
    token: Option<String>,
    pub(crate) patience: Patience,
}

/// What a repository holds at a commit.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Which repository and revision was asked for.
    pub source: Source,
    /// The hub's URL.
    pub endpoint: Url,
    /// The commit that the revision is.
    pub commit: String,
    /// Files by their paths.
    pub files: BTreeMap<String, Listed>,
}

/// What a hub tells of a file.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Bytes.
    pub size: u64,
    /// The hash of the content.
    pub hash: Hash,
}

/// A failed attempt, and whether another is worth it.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) again: bool,
    /// How long the hub asks to wait.
    pub(crate) after: Option<Duration>,
}

impl Failure {
    fn passing(error: Error) -> Self {
        Self { error, again: true, after: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: false, after: None }
    }
}

/// Counts attempts in a row that brought nothing.
pub(crate) struct Tries {
    patience: Patience,
    failed: u32,
}

impl Tries {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, failed: 0 }
    }

    /// Something was brought.
    pub(crate) fn reset(&mut self) {
        self.failed = 0;
    }

    /// Waits for the next attempt, or gives up.
    pub(crate) async fn wait(&mut self, failure: Failure, progress: &dyn Progress) -> Result<()> {
        let Failure { error, again, after } = failure;
        self.failed += 1;
        let own = self.patience.first_wait.saturating_mul(1 << (self.failed - 1).min(16)).min(LONGEST_STEP);
        let wait = after.unwrap_or(own);
        if !again || self.failed >= self.patience.attempts || wait > self.patience.longest_wait {
            return Err(error);
        }
        let text = error.to_string();
        let short = text.split(';').next().unwrap_or_default();
        progress.tell(News::Note(&format!("{short}; trying again in {:.0} s", wait.as_secs_f64().ceil())));
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// What is asked for, for messages.
struct Asked<'a> {
    endpoint: &'a Url,
    repo: &'a str,
    revision: &'a str,
    file: Option<&'a str>,
}

impl Asked<'_> {
    fn file(&self) -> String {
        self.file.unwrap_or("the list of files").to_owned()
    }

    fn unreachable(&self, url: &Url, why: String) -> Failure {
        Failure::passing(Error::Unreachable { repo: self.repo.to_owned(), file: self.file(), host: host(url), why })
    }

    fn answer(&self, url: &Url, what: String) -> Error {
        Error::Answer { repo: self.repo.to_owned(), file: self.file(), host: host(url), what }
    }
}

impl Hub {
    /// A hub at a URL such as [`ENDPOINT`].
    ///
    /// # Errors
    /// If the URL is malformed, or the system lets no client be made.
    pub fn new(endpoint: &str, token: Option<String>, patience: Patience) -> Result<Self> {
        let wrong = |why: &str| Error::Endpoint { text: endpoint.to_owned(), why: why.to_owned() };
        let url = Url::parse(endpoint).map_err(|e| wrong(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong("only `http` and `https` are understood"));
        }
        let client = Client::builder()
            .user_agent(concat!("syncdiffusion/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(patience.silence.min(Duration::from_secs(30)))
            .read_timeout(patience.silence)
            .build()
            .map_err(|e| Error::Client(why(e)))?;
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Ok(Self { client, endpoint: url, token, patience })
    }

    /// What a source holds. A revision is made a commit, so that all files are of one state of the repository.
    ///
    /// # Errors
    /// If the hub does not tell; see [`Error`].
    pub async fn listing(&self, source: &Source, progress: &dyn Progress) -> Result<Listing> {
        let mut tries = Tries::new(self.patience);
        loop {
            match self.list(source).await {
                Ok(listing) => return Ok(listing),
                Err(failure) => tries.wait(failure, progress).await?,
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
        let text = response.bytes().await.map_err(|e| asked.unreachable(&url, why(e)))?;
        let answer: Answer = serde_json::from_slice(&text)
            .map_err(|e| asked.answer(&url, format!("what is no list of files of a hub ({e})")))?;
        let files = answer.siblings.into_iter().filter_map(|file| {
            let listed = match (file.lfs, file.size, file.blob) {
                (Some(lfs), ..) => Listed { size: lfs.size, hash: Hash::Sha256(lfs.sha256.to_ascii_lowercase()) },
                (None, Some(size), Some(blob)) => Listed { size, hash: Hash::Git(blob.to_ascii_lowercase()) },
                // Without size and hash a file cannot be checked, so it counts as not there.
                _ => return None,
            };
            Some((file.rfilename, listed))
        });
        Ok(Listing { source: source.clone(), endpoint: endpoint.clone(), commit: answer.sha, files: files.collect() })
    }

    /// Opens a file at an offset. The answer tells whether the hub begins there, or with the whole file.
    pub(crate) async fn open(&self, file: &File, offset: u64) -> Result<(Response, bool), Failure> {
        let origin = &file.origin;
        let asked =
            Asked { endpoint: &file.endpoint, repo: &origin.repo, revision: &origin.commit, file: Some(&origin.path) };
        let names = origin.repo.split('/').chain(["resolve", origin.commit.as_str()]).chain(origin.path.split('/'));
        let (response, linked) = self.get(under(&file.endpoint, names), offset, &asked).await?;
        // Tells before gigabytes have come what would else be told after.
        if let (Some(found), Hash::Sha256(expected)) = (linked, &origin.hash)
            && found != *expected
        {
            return Err(file.mismatch(Hash::Sha256(found)).into());
        }
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let begins = format!("bytes {offset}-");
        let told = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
        if partial && !told.starts_with(&begins) {
            let what = format!("a range that was not asked for (`{told}`)");
            return Err(Failure::passing(asked.answer(response.url(), what)));
        }
        Ok((response, partial))
    }

    /// Asks, follows redirects, and turns what is no success into an error. Gives the hash that the hub itself told, too.
    async fn get(&self, url: Url, offset: u64, asked: &Asked<'_>) -> Result<(Response, Option<String>), Failure> {
        let mut url = url;
        let mut linked = None;
        for _ in 0..REDIRECTS {
            let mut request = self.client.get(url.clone());
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            if let Some(token) = self.token_for(&url) {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.map_err(|e| asked.unreachable(&url, why(e)))?;
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
        Err(asked.answer(&url, format!("more than {REDIRECTS} redirects")).into())
    }

    /// The token, if this is where it belongs.
    fn token_for(&self, url: &Url) -> Option<&str> {
        self.token.as_deref().filter(|_| url.origin() == self.endpoint.origin())
    }

    fn refusal(&self, response: &Response, asked: &Asked<'_>) -> Failure {
        let (status, url) = (response.status(), response.url());
        let own = url.origin() == asked.endpoint.origin();
        let page = under(asked.endpoint, asked.repo.split('/')).to_string();
        let (repo, file, host) = (asked.repo.to_owned(), asked.file(), host(url));
        match status.as_u16() {
            // Elsewhere these mean that a signed address is too old, and the hub gives a new one.
            status @ (401 | 403) if own => {
                let hint = if self.token_for(asked.endpoint).is_some() {
                    format!("the token in HF_TOKEN does not open it; accept the licence on {page} with its account")
                } else if self.token.is_some() {
                    format!("HF_TOKEN goes to {} only; set HF_ENDPOINT to where it belongs", self.endpoint)
                } else {
                    format!("set HF_TOKEN to a token and accept the licence on {page}, if there is such a page")
                };
                Error::Denied { repo, file, host, status, hint }.into()
            }
            404 | 410 if own => {
                let revision = asked.revision;
                let what = match asked.file {
                    Some(file) => format!("file `{file}` at `{revision}`"),
                    None => format!("revision `{revision}`, or is not there at all"),
                };
                Error::NotFound { page, what }.into()
            }
            429 => {
                let after = retry_after(response.headers());
                Failure { error: Error::TooMany { repo, file, host, wait: after }, again: true, after }
            }
            code => {
                let error = asked.answer(url, status.to_string());
                let again = matches!(code, 408 | 500..) || !own;
                Failure { error, again, after: retry_after(response.headers()).filter(|_| again) }
            }
        }
    }
}

/// `endpoint/name/name`, each name encoded.
fn under<'a>(endpoint: &Url, names: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = endpoint.clone();
    // Only URLs without a host have no segments, and those are no endpoints.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(names);
    }
    url
}

/// The SHA-256 that a hub tells in a header, of the file behind a redirect.
fn linked_hash(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get("x-linked-etag")?.to_str().ok()?;
    let tag = tag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
    (tag.len() == 64 && tag.chars().all(|c| c.is_ascii_hexdigit())).then_some(tag)
}

/// `Retry-After`, as seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Duration::try_from(date.timestamp().duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

/// An error with its causes, without the URL: those of redirects are signed.
pub(crate) fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

/// For a connection that broke while a file came.
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

    #[test]
    fn a_hub_asks_to_wait_in_seconds_or_until_a_date() {
        let wait = |text: &str| retry_after(&[(RETRY_AFTER, text.parse().unwrap())].into_iter().collect());
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
    }
}
