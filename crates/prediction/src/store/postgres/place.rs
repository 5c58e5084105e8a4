//! The bucket in which these servers have their pictures.
//!
//! An object has a random name in a folder of this database. So no node can overwrite what another has put, and servers
//! of two databases do not meet in a bucket.

use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _};
use object_store::Attribute;
use tokio::time::timeout;

use super::rows::Object;
use crate::bucket::{Access, Bucket, Failure, Got, Listed, Options};
use crate::output;
use crate::random;
use crate::store::error::StoreError;
use crate::store::record::Picture;

/// How long trying out a bucket may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bucket, and the folder of a database in it.
#[derive(Debug)]
pub(super) struct Place {
    bucket: Bucket,
    /// `s3://bucket/prefix`, for messages.
    url: String,
    folder: String,
    /// What else to say when it refuses.
    advice: &'static str,
}

/// A name that nobody can guess.
pub(super) fn name() -> Result<String, StoreError> {
    Ok(hex::encode(random::bytes::<20>().map_err(|error| StoreError::Engine(error.to_string()))?))
}

impl Place {
    pub(super) fn new(url: &str, folder: &str, access: &Access) -> Result<Self, StoreError> {
        let options = Options { url: url.to_owned(), access: access.clone() };
        let bucket = Bucket::new(&options)
            .map_err(|why| StoreError::Engine(format!("the bucket `{url}` of the pictures cannot be used: {why}")))?;
        let advice = if access.has_keys() { "" } else { "; set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`" };
        Ok(Self { bucket, url: url.to_owned(), folder: folder.to_owned(), advice })
    }

    /// `s3://bucket/prefix`.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Where an object is, for messages.
    pub(super) fn shown(&self, key: &str) -> String {
        format!("`{}/{}/{key}`", self.url, self.folder)
    }

    fn inside(&self, key: &str) -> String {
        format!("{}/{key}", self.folder)
    }

    /// What is said when the bucket does not do what it is asked to.
    fn failed(&self, done: &'static str, failure: &Failure) -> StoreError {
        metrics::counter!("syncdiffusion_bucket_failures_total").increment(1);
        let (why, advice) = (&failure.error, self.advice);
        StoreError::Engine(format!("the bucket `{}` of the pictures cannot be {done}: {why}{advice}", self.url))
    }

    /// What is said when it does not answer in time.
    pub(super) fn late(&self) -> StoreError {
        self.failed("reached", &Failure::transient("it does not answer".to_owned()))
    }

    /// Puts a picture under a new name.
    pub(super) async fn put(&self, picture: &Picture) -> Result<Object, StoreError> {
        let Picture { which, media, file, bytes } = picture;
        let format = output::format(bytes);
        let key = format!("{}.{}", name()?, format.extension());
        self.put_as(&key, bytes, format.media()).await?;
        let (which, media, file) = (which.clone(), media.clone(), file.clone());
        Ok(Object { which, media, file, size: bytes.len() as u64, key })
    }

    /// Puts an object.
    pub(super) async fn put_as(&self, key: &str, bytes: &[u8], media: &'static str) -> Result<(), StoreError> {
        let put = self.bucket.put(&self.inside(key), bytes, &[(Attribute::ContentType, media)]).await;
        put.map_err(|failure| self.failed("written to", &failure))
    }

    /// An object, if there is one of this name.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Got>, StoreError> {
        self.bucket.get(&self.inside(key)).await.map_err(|failure| self.failed("read", &failure))
    }

    /// The same, and does not wait for long.
    pub(super) async fn get_soon(&self, key: &str) -> Result<Option<Got>, StoreError> {
        timeout(PATIENCE, self.get(key)).await.unwrap_or_else(|_| Err(self.late()))
    }

    /// Removes objects; those that are gone now, and why others may be left.
    pub(super) async fn remove(&self, keys: &[String]) -> (Vec<String>, Option<StoreError>) {
        let (gone, failure) = self.bucket.remove(&self.folder, keys).await;
        (gone, failure.map(|failure| self.failed("removed from", &failure)))
    }

    /// All objects, some at a time.
    pub(super) fn list(&self) -> BoxStream<'_, Result<Vec<Listed>, StoreError>> {
        let listed = self.bucket.list(&self.folder);
        listed.map(|page| page.map_err(|failure| self.failed("listed", &failure))).boxed()
    }

    /// Puts, reads, lists and removes an object, so that what is not allowed or not reachable is told at once.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let probing = async {
            let key = name()?;
            self.put_as(&key, b"a trial", "text/plain").await?;
            if self.get(&key).await?.is_none() {
                let why = Failure::permanent("what was put into it is not there".to_owned());
                return Err(self.failed("read", &why));
            }
            if let Some(page) = self.list().next().await {
                page?;
            }
            self.remove(&[key]).await.1.map_or(Ok(()), Err)
        };
        timeout(PATIENCE, probing).await.unwrap_or_else(|_| Err(self.late()))
    }
}
