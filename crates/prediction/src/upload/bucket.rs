//! Pictures in a bucket: they get names that nobody can guess, and their URL is the output.

use std::sync::Arc;
use std::time::Duration;

use object_store::Attribute;
use object_store::aws::AmazonS3;
use object_store::signer::Signer as _;
use reqwest::{Method, Url};

use super::failure::Failure;
use crate::bucket::{self, failure, split};
use crate::output;

/// The longest time that S3 accepts for a presigned URL.
pub const MAX_LINK: Duration = Duration::from_hours(7 * 24);

/// Which bucket, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is.
    pub at: bucket::Options,
    /// Which URL of a picture becomes the output.
    pub links: Links,
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
    bucket: bucket::Bucket,
    signer: AmazonS3,
    links: To,
}

/// How URLs are made.
#[derive(Debug)]
enum To {
    Presigned(Duration),
    Below(Url),
}

/// A failure to write, in words.
fn unwritten(mut failure: Failure) -> Failure {
    failure.error = format!("the bucket could not be written to: {}", failure.error);
    failure
}

impl Bucket {
    pub(super) fn new(Options { at, links }: &Options) -> Result<Self, String> {
        let (name, _) = split(&at.url)?;
        let links = match links {
            Links::Presigned(time) => To::Presigned((*time).min(MAX_LINK)),
            Links::Public(base) => {
                let base = match (base, at.access.endpoint()) {
                    (Some(base), _) => base.clone(),
                    (None, Some(endpoint)) => format!("{}/{name}", endpoint.trim_end_matches('/')),
                    (None, None) => format!("https://{name}.s3.{}.amazonaws.com", at.access.region()),
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
        let signer = at.client()?;
        Ok(Self { bucket: bucket::Bucket::of(Arc::new(signer.clone()), &at.url)?, signer, links })
    }

    /// Puts a picture under a new name. Returns its URL.
    pub(super) async fn put(&self, picture: &Arc<[u8]>) -> Result<Arc<str>, Failure> {
        let format = output::format(picture);
        let name = output::name(format).map_err(|error| Failure::permanent(error.to_string()))?;
        let attributes = [
            (Attribute::ContentType, format.media()),
            (Attribute::ContentDisposition, "inline"),
            (Attribute::CacheControl, "public, max-age=31536000, immutable"),
        ];
        self.bucket.put(&name, picture, &attributes).await.map_err(unwritten)?;
        let key = self.bucket.path(&name);
        match &self.links {
            To::Presigned(time) => {
                let signed = self.signer.signed_url(Method::GET, &key, *time).await;
                Ok(signed.map_err(|error| unwritten(failure(&error)))?.as_str().into())
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

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::*;
    use crate::bucket::Access;

    fn options(url: &str, links: Links) -> Options {
        let environment = vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), "key".to_owned().into()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned().into()),
            ("AWS_REGION".to_owned(), "eu-north-1".to_owned().into()),
            ("AWS_UNHEARD_OF".to_owned(), "x".to_owned().into()),
        ];
        let access = Access { environment, ..Access::default() };
        Options { at: bucket::Options { url: url.to_owned(), access }, links }
    }

    #[tokio::test]
    async fn links() {
        crate::install_crypto();
        let key = Path::parse("日本/a b.png").unwrap();
        let options = options("s3://b/日本", Links::Presigned(Duration::from_mins(1)));
        assert!(!format!("{options:?}").contains("hush"));
        let bucket = Bucket::new(&options).unwrap();
        let signed = bucket.signer.signed_url(Method::GET, &key, Duration::from_mins(1)).await.unwrap();
        assert_eq!(signed.host_str(), Some("s3.eu-north-1.amazonaws.com"));
        assert!(signed.query().unwrap().contains("X-Amz-Expires=60") && !signed.as_str().contains("hush"), "{signed}");
        let links = Links::Public(Some("not a url".to_owned()));
        assert!(Bucket::new(&Options { links, ..options }).is_err());
    }
}
