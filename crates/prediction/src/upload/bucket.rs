//! A bucket of an S3-compatible store: pictures get names that nobody can guess, and their URL is the output.
//!
//! The bucket and its endpoint are the operator's, and are called wherever they lead.

use std::sync::Arc;
use std::time::Duration;

use http_client::causes;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::signer::Signer as _;
use object_store::{Attribute, Attributes, ClientOptions, ObjectStore as _, PutOptions, RetryConfig};
use reqwest::{Method, Url};

use super::failure::Failure;
use crate::output;
use crate::redacted::Redacted;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The longest time that S3 accepts for a presigned URL.
pub const MAX_LINK: Duration = Duration::from_hours(7 * 24);
/// The region where none is named; stores other than Amazon's mostly do not care.
const REGION: &str = "us-east-1";

/// Which bucket, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// `s3://bucket` or `s3://bucket/prefix`.
    pub url: String,
    /// Address of a store other than Amazon's.
    pub endpoint: Option<String>,
    /// Which URL of a picture becomes the output.
    pub links: Links,
    /// The variables `AWS_*` of the environment, by name: keys, region, roles.
    pub environment: Vec<(String, Redacted)>,
}

/// Which URL of a picture becomes the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Links {
    /// A signed one that is valid for this time.
    Presigned(Duration),
    /// One that does not expire: below this base, or the store's own.
    Public(Option<String>),
}

/// A bucket that can be written to.
#[derive(Debug)]
pub(crate) struct Bucket {
    store: AmazonS3,
    prefix: Path,
    links: To,
}

/// How URLs are made.
#[derive(Debug)]
enum To {
    Presigned(Duration),
    Below(Url),
}

/// The bucket and the prefix of a URL such as `s3://bucket/prefix`.
///
/// # Errors
/// What is wrong with it.
pub fn split(url: &str) -> Result<(&str, &str), String> {
    let wrong = || "write `s3://bucket` or `s3://bucket/prefix`".to_owned();
    let rest = url.strip_prefix("s3://").ok_or_else(wrong)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    if bucket.is_empty() || !bucket.bytes().all(plain) {
        return Err(wrong());
    }
    Path::parse(prefix).map_err(|error| format!("the prefix cannot be used: {error}"))?;
    Ok((bucket, prefix))
}

impl Bucket {
    pub(super) fn new(options: &Options) -> Result<Self, String> {
        let (bucket, prefix) = split(&options.url)?;
        let mut builder = AmazonS3Builder::new().with_region(REGION);
        for (name, value) in &options.environment {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value.reveal());
            }
        }
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| REGION.to_owned());
        // Plain HTTP only if the address says so.
        let plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new().with_timeout(TIMEOUT).with_allow_http(plain);
        // Retries are decided in one place for all uploads.
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let links = match &options.links {
            Links::Presigned(time) => To::Presigned((*time).min(MAX_LINK)),
            Links::Public(base) => {
                let base = match (base, endpoint) {
                    (Some(base), _) => base.clone(),
                    (None, Some(endpoint)) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
                    (None, None) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
                };
                let wrong =
                    |why: &dyn std::fmt::Display| format!("`--s3-public-url`: {why}; write `https://host/path`");
                let base = Url::parse(&base).map_err(|error| wrong(&error))?;
                if base.cannot_be_a_base() {
                    return Err(wrong(&"it has no host"));
                }
                To::Below(base)
            }
        };
        let store = builder
            .with_bucket_name(bucket)
            .with_client_options(client)
            .with_retry(once)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { store, prefix: Path::parse(prefix).map_err(|error| error.to_string())?, links })
    }

    /// Puts a picture under a new name. Returns its URL.
    pub(super) async fn put(&self, picture: &Arc<[u8]>) -> Result<Arc<str>, Failure> {
        let format = output::format(picture);
        let name = output::name(format).map_err(|error| Failure::permanent(error.to_string()))?;
        let key: Path = self.prefix.parts().chain([name.as_str().into()]).collect();
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, format.media()),
            (Attribute::ContentDisposition, "inline"),
            (Attribute::CacheControl, "public, max-age=31536000, immutable"),
        ]);
        let options = PutOptions { attributes, ..PutOptions::default() };
        let put = self.store.put_opts(&key, picture.to_vec().into(), options).await;
        put.map_err(|error| failure(&error))?;
        match &self.links {
            To::Presigned(time) => {
                let url = self.store.signed_url(Method::GET, &key, *time).await.map_err(|error| failure(&error))?;
                Ok(url.as_str().into())
            }
            To::Below(base) => {
                let mut url = base.clone();
                if let Ok(mut path) = url.path_segments_mut() {
                    path.pop_if_empty().extend(key.parts().map(|part| part.as_ref().to_owned()));
                }
                Ok(url.as_str().into())
            }
        }
    }
}

/// Why a request to the store failed: the last cause, and of a response its status and code. The rest of a response may
/// repeat what was signed.
fn failure(error: &object_store::Error) -> Failure {
    use object_store::Error;
    let transient = matches!(error, Error::Generic { .. });
    let last = causes(error).last();
    let text = last.map_or_else(|| error.to_string(), ToString::to_string);
    let error = format!("the bucket could not be written to: {}", brief(&text));
    Failure { error, transient, retry_after: None }
}

/// The status and code of a response of S3, or the first line of anything else.
fn brief(text: &str) -> String {
    let between = |start: &str, end: &str| Some(text.split_once(start)?.1.split_once(end)?.0.trim());
    let status = between("status code: ", ":");
    match (status, between("<Code>", "</Code>")) {
        (Some(status), Some(code)) => format!("it answered {status}, {code}"),
        (Some(status), None) => format!("it answered {status}"),
        _ => text.lines().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str, links: Links) -> Options {
        let environment = vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), "key".to_owned().into()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned().into()),
            ("AWS_REGION".to_owned(), "eu-north-1".to_owned().into()),
            ("AWS_UNHEARD_OF".to_owned(), "x".to_owned().into()),
        ];
        Options { url: url.to_owned(), endpoint: None, links, environment }
    }

    #[test]
    fn buckets_are_named_by_their_url() {
        assert_eq!(split("s3://b"), Ok(("b", "")));
        assert_eq!(split("s3://b.c-d/pictures/日本/"), Ok(("b.c-d", "pictures/日本/")));
        for wrong in
            ["b", "s3://", "s3:///x", "s3://key:secret@b", "s3://b?x", "s3://b/../up", "s3://b/a//b", "https://b"]
        {
            assert!(split(wrong).is_err(), "{wrong}");
        }
        let options = options("s3://b", Links::Public(None));
        assert!(!format!("{options:?}").contains("hush"));
    }

    #[test]
    fn responses_are_shortened() {
        let answer = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code>\
            <AWSAccessKeyId>key</AWSAccessKeyId></Error>";
        assert_eq!(brief(answer), "it answered 403 Forbidden, SignatureDoesNotMatch");
        assert_eq!(
            brief("Server returned non-2xx status code: 500 Internal Server Error: "),
            "it answered 500 Internal Server Error"
        );
        assert_eq!(brief("connection refused\nmore"), "connection refused");
    }

    #[tokio::test]
    async fn links() {
        crate::install_crypto();
        let key = Path::parse("日本/a b.png").unwrap();
        let bucket = Bucket::new(&options("s3://b/日本", Links::Presigned(Duration::from_mins(1)))).unwrap();
        let signed = bucket.store.signed_url(Method::GET, &key, Duration::from_mins(1)).await.unwrap();
        assert_eq!(signed.host_str(), Some("s3.eu-north-1.amazonaws.com"));
        assert!(signed.query().unwrap().contains("X-Amz-Expires=60") && !signed.as_str().contains("hush"), "{signed}");
        assert!(Bucket::new(&options("s3://b", Links::Public(Some("not a url".to_owned())))).is_err());
    }
}
