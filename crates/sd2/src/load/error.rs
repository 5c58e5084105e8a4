//! Errors of loading a model.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bundle lacks a file.
    #[error(
        "the model has no `{wanted}`; a model is a diffusers folder with `unet/`, `vae/`, `text_encoder/`, \
         `tokenizer/`, `scheduler/` and `perceptual/`"
    )]
    Missing {
        /// The file, or the names that it may have.
        wanted: String,
    },
    /// A file is not what it should be.
    #[error("`{file}` {problem}")]
    File {
        /// The file, inside the bundle where it is in one.
        file: String,
        /// What it is instead, and what to do: the rest of the sentence.
        problem: String,
    },
    /// A model of a kind that this crate does not draw with.
    #[error("the model cannot be used: {0}")]
    Foreign(String),
    /// A configuration is malformed or asks for something unsupported.
    #[error("`{file}` cannot be used:{}", list(problems))]
    Config {
        /// The file inside the bundle.
        file: String,
        /// One line each.
        problems: Vec<String>,
    },
    /// Weights are missing, unknown or of another shape.
    #[error("the weights of `{part}` do not match its configuration:{}", list(problems))]
    Weights {
        /// The part of the bundle.
        part: String,
        /// One line each.
        problems: Vec<String>,
    },
    /// The parts of a model do not fit each other.
    #[error("the parts of the model do not fit each other:{}", list(problems))]
    Misfit {
        /// One line each.
        problems: Vec<String>,
    },
    /// The tokenizer's files are malformed.
    #[error("the tokenizer cannot be used: {0}")]
    Tokenizer(String),
}

/// The result of everything in this crate that reads files.
pub type Result<T> = std::result::Result<T, Error>;

/// How many problems are listed; who has more has another kind of file.
const MAX_LISTED: usize = 12;

/// One problem is the rest of the sentence, several are lines.
fn list(problems: &[String]) -> String {
    if let [problem] = problems {
        return format!(" {problem}");
    }
    let mut lines: Vec<_> = problems.iter().take(MAX_LISTED).map(|problem| format!("\n  - {problem}")).collect();
    if problems.len() > MAX_LISTED {
        lines.push(format!("\n  - and {} more", problems.len() - MAX_LISTED));
    }
    lines.concat()
}
