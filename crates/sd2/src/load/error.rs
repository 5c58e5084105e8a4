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
    /// A configuration is malformed or asks for something unsupported.
    #[error("`{file}` cannot be used:\n{}", list(problems))]
    Config {
        /// The file inside the bundle.
        file: String,
        /// One line each.
        problems: Vec<String>,
    },
    /// Weights are missing, unknown or of another shape.
    #[error("the weights of `{part}` do not match its configuration:\n{}", list(problems))]
    Weights {
        /// The part of the bundle.
        part: String,
        /// One line each.
        problems: Vec<String>,
    },
    /// The tokenizer's files are malformed.
    #[error("the tokenizer cannot be used: {0}")]
    Tokenizer(String),
}

/// The result of everything in this crate that reads files.
pub type Result<T> = std::result::Result<T, Error>;

fn list(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n")
}
