//! What can go wrong, in words that say what to do next.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::hash::Hash;
use crate::layout::LOCK;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which file was asked for, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The repository, `owner/name`.
    pub repo: String,
    /// The path in the repository, or `the list of files`.
    pub file: String,
    /// The host that was asked, with its port if that is not the usual one.
    pub host: String,
}

/// Why files were not fetched, or are missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A source is malformed.
    #[error("`{text}` is not a repository: {why}; write `owner/name` or the URL of its page")]
    Source {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The endpoint is malformed.
    #[error(
        "the endpoint `{text}` is not the URL of a hub: {why}; set HF_ENDPOINT to one such as `https://huggingface.co`"
    )]
    Endpoint {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The hub was not reached, or the connection broke, again and again.
    #[error(
        "{at} cannot be reached: {why}; check the network and run the command again: what was received is kept. Set \
         HF_ENDPOINT to use another hub"
    )]
    Unreachable {
        /// What was asked for.
        at: Box<At>,
        /// What happened.
        why: String,
    },
    /// The hub answers 401 or 403.
    #[error("{at} answers {status}; {hint}")]
    Denied {
        /// What was asked for.
        at: Box<At>,
        /// 401 or 403.
        status: u16,
        /// What to do.
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
    /// The hub keeps answering 429, or asks for a longer wait than the policy grants.
    #[error(
        "{at} answers 429, too many requests{}; run the command again later: what was received is kept. With a token \
         in HF_TOKEN a hub allows more",
        wait.map(|wait| format!(", and asks to wait {} s", wait.as_secs())).unwrap_or_default()
    )]
    TooMany {
        /// What was asked for.
        at: Box<At>,
        /// How long the hub asks to wait.
        wait: Option<Duration>,
    },
    /// The hub answers something else.
    #[error("{at} answers {what}; run the command again later, or try another hub or `--from`")]
    Answer {
        /// What was asked for.
        at: Box<At>,
        /// The answer.
        what: String,
    },
    /// A repository lacks what a bundle needs.
    #[error("`{repo}` cannot be used:\n{}", problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n"))]
    Unfit {
        /// The repository.
        repo: String,
        /// All that is wrong with it.
        problems: Vec<String>,
    },
    /// The content is not the one that the hub lists.
    #[error(
        "`{}` of `{}` is wrong: the hub lists {expected} and sent {found}; it was not kept. Run the command again, or \
         try another `--from`",
        at.file, at.repo
    )]
    Mismatch {
        /// What was asked for.
        at: Box<At>,
        /// What the hub lists.
        expected: Hash,
        /// What it sent.
        found: Hash,
    },
    /// The content is longer than the hub lists.
    #[error(
        "`{}` of `{}` is wrong: the hub lists {expected} bytes and sent more; it was not kept. Run the command again, \
         or try another `--from`",
        at.file, at.repo
    )]
    TooLong {
        /// What was asked for.
        at: Box<At>,
        /// Bytes that the hub lists.
        expected: u64,
    },
    /// The disk is too small.
    #[error(
        "`{}` has {} free and {} are needed, {} more; make room, or choose another disk with `--to`",
        path.display(), Amount(*free), Amount(*needed), Amount(needed.saturating_sub(*free))
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
    #[error("another `weights fetch` is writing to `{}`; wait for it to end", .0.display())]
    Busy(PathBuf),
    /// The folder holds something that was not fetched.
    #[error("`{}` is not empty and was not fetched; choose another folder with `--to`", .0.display())]
    Occupied(PathBuf),
    /// The weights of VGG16 are not as they should be.
    #[error("the weights of VGG16 cannot be used: {0}; try another `--perceptual-from`")]
    Perceptual(String),
    /// A file is not the perceptual network.
    #[error(
        "`{}` cannot be used: {why}; give `model.safetensors` of `timm/vgg16.tv_in1k`, or that in the `perceptual/` of \
         another model", file.display()
    )]
    PerceptualFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A folder has no lock.
    #[error(
        "`{}` has no `{LOCK}`, so there is nothing to check it against: it was not fetched, or not completely; \
         `syncdiffusion weights fetch` does both", .0.display()
    )]
    Unlocked(PathBuf),
    /// A lock cannot be read.
    #[error("`{}` is not a valid lock: {why}; run `syncdiffusion weights fetch` again", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No model has this name.
    #[error("there is no model `{name}`: {why}")]
    NoModel {
        /// The name.
        name: String,
        /// Where it was looked for, and what to do.
        why: String,
    },
    /// A model cannot have this name.
    #[error("`{name}` cannot be the name of a model: {why}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        why: String,
    },
    /// The environment names no folder for models.
    #[error(
        "there is no folder for models: neither HOME nor XDG_DATA_HOME is set; set SYNCDIFFUSION_HOME, or name a folder"
    )]
    Homeless,
    /// The HTTP client or a thread of the fetch failed.
    #[error("the fetch cannot work: {0}")]
    Client(String),
}

impl Error {
    /// For `map_err` on what the system says about `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Whether another repository may have what this one lacks.
    pub(crate) fn is_about_the_repository(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::NotFound { .. } | Self::Unfit { .. })
    }
}

impl fmt::Display for At {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "`{}` of `{}`: `{}`", self.file, self.repo, self.host)
    }
}

/// A number of bytes as people write it.
struct Amount(u64);

impl fmt::Display for Amount {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        match [("GB", 1e9), ("MB", 1e6), ("KB", 1e3)].into_iter().find(|(_, unit)| bytes as f64 >= *unit) {
            Some((name, unit)) => write!(to, "{:.1} {name}", bytes as f64 / unit),
            None => write!(to, "{bytes} bytes"),
        }
    }
}
