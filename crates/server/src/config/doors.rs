//! Flags for who gets in, and how much at once.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::http::HeaderValue;
use clap::Args;

use super::{bytes, count, duration};
use crate::http::{Token, Tokens};

/// Who gets in, and how much at once.
#[derive(Debug, Args)]
#[command(next_help_heading = "Doors")]
pub(crate) struct Doors {
    /// Token that clients show as `Authorization: Bearer TOKEN`; several are separated by commas. Without one everybody
    /// gets in
    #[arg(long, env = "SYNCDIFFUSION_API_TOKEN", hide_env_values = true, value_name = "TOKEN", value_delimiter = ',')]
    #[arg(value_parser = token)]
    api_token: Vec<Token>,
    /// File of tokens, one a line; lines that begin with `#` are comments
    #[arg(long, env = "SYNCDIFFUSION_API_TOKEN_FILE", value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Origin whose pages may call the server from a browser, such as `https://example.com`; several are separated by
    /// commas, `*` is all
    #[arg(long, env = "SYNCDIFFUSION_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    pub(crate) cors_origin: Vec<HeaderValue>,
    /// Largest body of a request; Cog's is 100MiB
    #[arg(long, env = "SYNCDIFFUSION_MAX_BODY", default_value = "100MiB", value_parser = bytes)]
    pub(crate) max_body: u64,
    /// How long the header of a request may take, and a connection may be idle
    #[arg(long, env = "SYNCDIFFUSION_HEADER_TIMEOUT", default_value = "30s", value_parser = positive)]
    pub(crate) header_timeout: Duration,
    /// How long the body of a request may take
    #[arg(long, env = "SYNCDIFFUSION_BODY_TIMEOUT", default_value = "1m", value_parser = positive)]
    pub(crate) body_timeout: Duration,
    /// How long a client may leave its answer unread before its connection is closed
    #[arg(long, env = "SYNCDIFFUSION_WRITE_TIMEOUT", default_value = "1m", value_parser = positive)]
    pub(crate) write_timeout: Duration,
    /// How many connections may be open; more wait to be accepted
    #[arg(long, env = "SYNCDIFFUSION_MAX_CONNECTIONS", default_value_t = 10240, value_parser = count)]
    pub(crate) max_connections: usize,
}

impl Doors {
    /// The tokens of flags, environment and file; none if everybody gets in.
    ///
    /// # Errors
    /// If the file cannot be read, or a token could not be sent in a header. No error says a token.
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
                bail!("`--api-token-file`: there is no token in `{shown}`; write one a line");
            }
        }
        if !tokens.iter().all(Token::is_sound) {
            bail!(
                "a token is empty or has characters that no header carries; write letters, digits and punctuation \
                 without spaces, or leave `--api-token` and its variable unset"
            );
        }
        Ok(Tokens::new(tokens))
    }
}

/// A token. It is checked later, for what is refused here is shown.
#[expect(clippy::unnecessary_wraps, reason = "what clap wants of a parser")]
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

/// A duration that is not zero.
fn positive(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|is| if is.is_zero() { Err("write more than 0, such as `30s`".to_owned()) } else { Ok(is) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_of_browsers() {
        for good in ["*", "http://localhost:3000", "https://example.com"] {
            assert!(origin(good).is_ok(), "{good}");
        }
        for bad in ["", "example.com", "https://", "https://example.com/", "https://*.example.com", "ftp://x", "null"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
