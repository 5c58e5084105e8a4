//! Flags for who may use the server.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use axum::http::HeaderValue;
use clap::Args;

use crate::tokens::{Token, Tokens};

#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct Access {
    /// Token that clients send as `Authorization: Bearer TOKEN`, or a name and a token with a blank between, to count
    /// by name; separate several by commas. Without any, requests need no token
    #[arg(long, env = "SYNCDIFFUSION_API_TOKEN", hide_env_values = true, value_name = "TOKEN", value_delimiter = ',')]
    #[arg(value_parser = token)]
    api_token: Vec<Token>,
    /// File of tokens, one per line, each alone or behind a name; lines that begin with `#` are comments
    #[arg(long, env = "SYNCDIFFUSION_API_TOKEN_FILE", value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Origin whose pages may call the server from a browser, such as `https://example.com`; separate several by
    /// commas; `*` allows all
    #[arg(long, env = "SYNCDIFFUSION_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    pub(crate) cors_origin: Vec<HeaderValue>,
}

impl Access {
    /// The tokens of flags, environment and file; none if no token is needed.
    ///
    /// # Errors
    /// If the file cannot be read, or a token could not be sent in a header. No error contains a token.
    pub(crate) fn tokens(&self) -> anyhow::Result<Tokens> {
        let mut tokens = self.api_token.clone();
        if let Some(path) = &self.api_token_file {
            let shown = path.display();
            let text =
                fs::read_to_string(path).with_context(|| format!("`--api-token-file`: cannot read `{shown}`"))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let before = tokens.len();
            tokens.extend(lines.map(Token::new));
            if tokens.len() == before {
                bail!("`--api-token-file`: `{shown}` contains no token; write one per line");
            }
        }
        if !tokens.iter().all(Token::is_sound) {
            bail!(
                "a token is empty or has characters that a header cannot carry, or its name has others than letters, digits \
                 and `._-@`; write `TOKEN` or `NAME TOKEN`, or leave `--api-token` and SYNCDIFFUSION_API_TOKEN unset"
            );
        }
        Ok(Tokens::new(tokens))
    }
}

/// A token. It is checked later, because clap repeats what is refused here.
#[expect(clippy::unnecessary_wraps, reason = "the signature of a parser of clap")]
fn token(text: &str) -> Result<Token, String> {
    Ok(Token::new(text))
}

/// An origin as browsers write it: scheme, host and port.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*']);
    let value = HeaderValue::from_str(text).ok().filter(|_| text == "*" || host.is_some_and(plain));
    value
        .ok_or_else(|| "write `https://example.com`, with the port if it has one and without a path, or `*`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_of_browsers() {
        for valid in ["*", "http://localhost:3000", "https://example.com"] {
            assert!(origin(valid).is_ok(), "{valid}");
        }
        for bad in ["", "example.com", "https://", "https://example.com/", "https://*.example.com", "ftp://x", "null"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
