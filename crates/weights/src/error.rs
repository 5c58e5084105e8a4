//! What can go wrong, in words that say what to do next.

use std::{io, path::PathBuf, time::Duration};

use url::Url;

use crate::Hash;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why files were not fetched, or are not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A source is malformed.
    #[error("`{text}` is no repository: {why}; write `owner/name` or the URL of its page")]
    Source {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The endpoint is malformed.
    #[error("the endpoint `{text}` is no URL of a hub: {why}; set HF_ENDPOINT to one such as `https://huggingface.co`")]
    Endpoint {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The hub was not reached, or the connection broke, again and again.
    #[error(
        "`{file}` of `{repo}`: `{host}` cannot be reached: {why}; check the network and run the command again: what was \
         received is kept. Another hub is named by HF_ENDPOINT"
    )]
    Unreachable {
        /// The repository.
        repo: String,
        /// The file, or `the list of files`.
        file: String,
        /// The host that was asked.
        host: String,
        /// What happened.
        why: String,
    },
    /// The hub answers 401 or 403.
    #[error("`{file}` of `{repo}`: `{host}` answers {status}; {hint}")]
    Denied {
        /// The repository.
        repo: String,
        /// The file, or `the list of files`.
        file: String,
        /// The host that was asked.
        host: String,
        /// 401 or 403.
        status: u16,
        /// What would do.
        hint: String,
    },
    /// The hub answers 404.
    #[error(
        "`{page}` has no {what}: the hub answers 404; check the name and `--revision`, or name another repository with \
         `--from`"
    )]
    NotFound {
        /// The repository's page.
        page: String,
        /// What was asked for.
        what: String,
    },
    /// The hub answers 429 for longer than is waited.
    #[error(
        "`{file}` of `{repo}`: `{host}` answers 429, too many requests{}; run the command again later: what was received is \
         kept. With a token in HF_TOKEN a hub allows more",
        wait.map(|wait| format!(", and asks to wait {} s", wait.as_secs())).unwrap_or_default()
    )]
    TooMany {
        /// The repository.
        repo: String,
        /// The file, or `the list of files`.
        file: String,
        /// The host that was asked.
        host: String,
        /// How long it asks to wait.
        wait: Option<Duration>,
    },
    /// The hub answers something else.
    #[error(
        "`{file}` of `{repo}`: `{host}` answers {what}; run the command again later, or try another hub or `--from`"
    )]
    Answer {
        /// The repository.
        repo: String,
        /// The file, or `the list of files`.
        file: String,
        /// The host that was asked.
        host: String,
        /// What it answers.
        what: String,
    },
    /// A repository does not have what a bundle needs.
    #[error("`{repo}` cannot be used:\n{}", problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n"))]
    Unfit {
        /// The repository.
        repo: String,
        /// What is wrong with it, all of it.
        problems: Vec<String>,
    },
    /// What came is not what the hub told.
    #[error(
        "`{file}` of `{repo}` is wrong: the hub tells {expected} and gives {found}; it was not kept. Run the command again, or \
         try another `--from`"
    )]
    Mismatch {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// What the hub told.
        expected: Hash,
        /// What came.
        found: Hash,
    },
    /// What came is longer than what the hub told.
    #[error(
        "`{file}` of `{repo}` is wrong: the hub tells {expected} bytes and gives more; it was not kept. Run the command again, \
         or try another `--from`"
    )]
    TooLong {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// What the hub told.
        expected: u64,
    },
    /// The disk is too small.
    #[error(
        "`{}` has {} free and {} are needed: {} too few; make room, or choose another disk with `--to`",
        path.display(), crate::disk::amount(*free), crate::disk::amount(*needed),
        crate::disk::amount(needed.saturating_sub(*free))
    )]
    Space {
        /// The bundle's folder.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Bytes that are still to be written.
        needed: u64,
    },
    /// Another process fetches into the same folder.
    #[error("another `weights fetch` is writing to `{}`; wait for it to end", path.display())]
    Busy {
        /// The bundle's folder.
        path: PathBuf,
    },
    /// The folder holds something that is no bundle.
    #[error("`{}` is not empty and no bundle that was fetched; choose another folder with `--to`", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// The weights of VGG16 are not as they should be.
    #[error("the weights of VGG16 cannot be used: {why}; try another `--perceptual-from`")]
    Perceptual {
        /// What is wrong with them.
        why: String,
    },
    /// A folder has no lock.
    #[error(
        "`{}` has no `{}`, so there is nothing to check it against: it was not fetched, or not to the end; \
         `syncdiffusion weights fetch` does both", path.display(), crate::LOCK
    )]
    Unlocked {
        /// The folder.
        path: PathBuf,
    },
    /// A lock cannot be read.
    #[error("`{}` is no lock: {why}; run `syncdiffusion weights fetch` again", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A name of a model means nothing.
    #[error("there is no model `{name}`: {why}")]
    NoModel {
        /// The name.
        name: String,
        /// Where was looked and what would do.
        why: String,
    },
    /// A name cannot be the name of a model.
    #[error("`{name}` cannot be the name of a model: {why}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        why: String,
    },
    /// There is no place for models.
    #[error(
        "there is no folder for models: neither HOME nor XDG_DATA_HOME is set; set SYNCDIFFUSION_HOME, or name a folder"
    )]
    Homeless,
    /// A client cannot be made.
    #[error("no connections can be made: {0}")]
    Client(String),
}

impl Error {
    /// For `map_err` on what the system says about `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Whether another repository may have what this one has not.
    pub(crate) fn is_about_the_repository(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::NotFound { .. } | Self::Unfit { .. })
    }
}

/// The host and port of a URL.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
