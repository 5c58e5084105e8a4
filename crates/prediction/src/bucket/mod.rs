//! A bucket of an S3-compatible store. It and its address are the operator's, and are called wherever they lead.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use http_client::causes;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, Error, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutOptions, RetryConfig,
};

use crate::redacted::Redacted;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The region where none is named; stores other than Amazon's mostly do not care.
const REGION: &str = "us-east-1";
/// How many objects of a list come at a time.
const PAGE: usize = 1000;
/// The variables by which a machine may get its keys, if they are not named themselves.
const KEYS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Why a request failed, in words and without secrets.
pub(crate) type Failure = http_client::Failure<String>;

/// How a store is reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Address of a store other than Amazon's.
    pub endpoint: Option<String>,
    /// The variables `AWS_*` of the environment, by name: keys, region, roles.
    pub environment: Vec<(String, Redacted)>,
    /// A store in memory.
    #[cfg(test)]
    pub(crate) memory: Option<Arc<object_store::memory::InMemory>>,
}

/// Which bucket, and how it is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// `s3://bucket` or `s3://bucket/prefix`.
    pub url: String,
    /// How it is reached.
    pub access: Access,
}

/// A bucket, below the prefix of its URL.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// An object that was read.
pub(crate) struct Got {
    pub(crate) bytes: Arc<[u8]>,
    /// When it was put, in seconds, by the clock of the store.
    pub(crate) put_at: i64,
}

/// An object of a list.
pub(crate) struct Listed {
    /// Its name in the folder that was listed.
    pub(crate) name: String,
    /// When it was put, in seconds, by the clock of the store.
    pub(crate) put_at: i64,
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

impl Access {
    fn builder(&self) -> AmazonS3Builder {
        let mut builder = AmazonS3Builder::new().with_region(REGION);
        for (name, value) in &self.environment {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value.reveal());
            }
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        builder
    }

    /// The address of the store, unless it is Amazon's.
    pub(crate) fn endpoint(&self) -> Option<String> {
        self.builder().get_config_value(&AmazonS3ConfigKey::Endpoint)
    }

    /// The region.
    pub(crate) fn region(&self) -> String {
        self.builder().get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| REGION.to_owned())
    }

    /// Whether a variable says where keys are to be had.
    pub(crate) fn has_keys(&self) -> bool {
        KEYS.iter().any(|key| self.environment.iter().any(|(name, _)| name == key))
    }
}

impl Options {
    /// A client of the store. Nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub(crate) fn client(&self) -> Result<AmazonS3, String> {
        let (bucket, _) = split(&self.url)?;
        // Plain HTTP only if the address says so.
        let plain = self.access.endpoint().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new().with_timeout(TIMEOUT).with_allow_http(plain);
        // Whoever asks decides about retries.
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let builder = self.access.builder().with_bucket_name(bucket).with_client_options(client).with_retry(once);
        builder.build().map_err(|error| error.to_string())
    }
}

impl Bucket {
    /// The bucket of some options. Nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub(crate) fn new(options: &Options) -> Result<Self, String> {
        #[cfg(test)]
        if let Some(memory) = &options.access.memory {
            return Self::of(Arc::clone(memory) as Arc<_>, &options.url);
        }
        Self::of(Arc::new(options.client()?), &options.url)
    }

    /// The bucket of a client that was made for a URL.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(crate) fn of(store: Arc<dyn ObjectStore>, url: &str) -> Result<Self, String> {
        let (_, prefix) = split(url)?;
        Ok(Self { store, prefix: Path::parse(prefix).map_err(|error| error.to_string())? })
    }

    /// The path of a name in the bucket.
    pub(crate) fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }

    /// Puts an object.
    pub(crate) async fn put(
        &self,
        name: &str,
        bytes: &[u8],
        attributes: &[(Attribute, &'static str)],
    ) -> Result<(), Failure> {
        let attributes: Attributes = attributes.iter().cloned().collect();
        let options = PutOptions { attributes, ..PutOptions::default() };
        let put = self.store.put_opts(&self.path(name), bytes.to_vec().into(), options).await;
        put.map(drop).map_err(|error| failure(&error))
    }

    /// An object, if there is one of this name.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Got>, Failure> {
        let got = match self.store.get(&self.path(name)).await {
            Err(error) if is_missing(&error) => return Ok(None),
            got => got.map_err(|error| failure(&error))?,
        };
        let put_at = got.meta.last_modified.timestamp();
        let bytes = got.bytes().await.map_err(|error| failure(&error))?;
        Ok(Some(Got { bytes: Arc::from(&*bytes), put_at }))
    }

    /// Removes objects of a folder; those that are gone now, and why others may be left.
    pub(crate) async fn remove(&self, folder: &str, names: &[String]) -> (Vec<String>, Option<Failure>) {
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(&format!("{folder}/{name}")))).collect();
        let mut removing = self.store.delete_stream(stream::iter(paths).boxed());
        let (mut gone, mut failed) = (Vec::new(), None);
        while let Some(removed) = removing.next().await {
            match removed {
                Ok(path) => gone.extend(path.filename().map(str::to_owned)),
                Err(error) => failed = failed.or_else(|| Some(failure(&error))),
            }
        }
        (gone, failed)
    }

    /// The objects of a folder, some at a time.
    pub(crate) fn list(&self, folder: &str) -> BoxStream<'static, Result<Vec<Listed>, Failure>> {
        let listed = |meta: ObjectMeta| {
            let name = meta.location.filename().unwrap_or_default().to_owned();
            Listed { name, put_at: meta.last_modified.timestamp() }
        };
        let page = move |page: Vec<Result<ObjectMeta, Error>>| {
            page.into_iter().map(|meta| meta.map(listed).map_err(|error| failure(&error))).collect()
        };
        self.store.list(Some(&self.path(folder))).chunks(PAGE).map(page).boxed()
    }
}

/// Whether there is no such object, although there is the bucket.
fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && !failure(error).error.contains("NoSuchBucket")
}

/// Why a request to the store failed: the last cause, and of a response its status and code. The rest of a response may
/// repeat what was signed.
pub(crate) fn failure(error: &Error) -> Failure {
    let transient = matches!(error, Error::Generic { .. });
    let last = causes(error).last();
    let text = last.map_or_else(|| error.to_string(), ToString::to_string);
    Failure { error: brief(&text), transient, retry_after: None }
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
