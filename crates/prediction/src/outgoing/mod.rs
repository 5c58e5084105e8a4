//! The SSRF guard (server-side request forgery) for URLs that clients name: webhooks, pictures with an
//! `output_file_prefix`, and pictures that are inputs.
//!
//! Without it, a client could make this server call what only the server can reach. What always holds of an HTTP client
//! that a [`Gate`] made:
//! - it speaks `http` and `https` only, and its URLs carry no credentials;
//! - it connects to addresses of the internet only, unless private ones are allowed. Literal addresses are judged as
//!   they stand in the URL, where decimal, octal and shortened ones are read as the connection would read them; names
//!   are judged by the addresses that they resolve to, and the connection is made to those very addresses, so that
//!   nothing can change in between;
//! - every redirect that is followed passes the same checks;
//! - proxies of the environment are used only where private addresses are allowed, because a proxy resolves names by
//!   itself.

mod addresses;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url, redirect};
use url::Host;

/// Redirects that are followed, one after the other.
const MAX_REDIRECTS: usize = 10;
/// The longest URL of a client in bytes: it is stored with its prediction, and one of 64 KiB cannot be called. Those
/// that a bucket has signed have two thousand.
pub const MAX_URL: usize = 8 << 10;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// The kind of an address that must not be called; `None` for one that may.
type Rule = fn(IpAddr) -> Option<&'static str>;

/// Decides which URLs of clients are called.
#[derive(Clone)]
pub struct Gate {
    /// Nothing is refused for its address if absent.
    rule: Option<Rule>,
    names: Arc<dyn Resolve>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Gate").field("allows_private", &self.rule.is_none()).finish_non_exhaustive()
    }
}

/// Why a URL is not called. The message does not repeat the URL, which may contain secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is longer than [`MAX_URL`].
    #[error("the URL is longer than the maximum of {MAX_URL} bytes; send a shorter one")]
    TooLong,
    /// It cannot be parsed.
    #[error("this is not a URL: {0}; write one such as `https://example.com/path`")]
    NotAUrl(url::ParseError),
    /// Its scheme is not `http` or `https`.
    #[error("URLs with the scheme `{0}` are not called; use `http` or `https`")]
    Scheme(String),
    /// It contains a user or a password.
    #[error("URLs that contain a user or a password are not called; remove what is before the `@`")]
    Credentials,
    /// It leads to this machine or its networks.
    #[error("`{host}` is {kind} address, which is not called unless the server is started with `--allow-private-urls`")]
    Private {
        /// Its host.
        host: String,
        /// The kind of its address, with the article.
        kind: &'static str,
    },
}

impl Gate {
    /// A gate that accepts addresses of the internet, and private ones only if they are allowed.
    pub fn new(allow_private: bool) -> Self {
        Self { rule: (!allow_private).then_some(addresses::not_public), names: Arc::new(System) }
    }

    /// Parses a URL and checks what can be checked before its name is resolved.
    ///
    /// # Errors
    /// Why it is not called.
    pub fn check(&self, url: &str) -> Result<Url, Refused> {
        if url.len() > MAX_URL {
            return Err(Refused::TooLong);
        }
        let url = Url::parse(url).map_err(Refused::NotAUrl)?;
        self.judge(&url)?;
        Ok(url)
    }

    fn judge(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        let Some(rule) = self.rule else { return Ok(()) };
        let kind = match url.host() {
            Some(Host::Ipv4(address)) => rule(address.into()),
            Some(Host::Ipv6(address)) => rule(address.into()),
            // By RFC 6761, without asking a resolver.
            Some(Host::Domain(name)) if is_localhost(name) => Some("a loopback"),
            _ => None,
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        kind.map_or(Ok(()), |kind| Err(Refused::Private { host, kind }))
    }

    /// A client that keeps to this gate and does not follow redirects.
    ///
    /// # Errors
    /// If an HTTP client cannot be made.
    pub(crate) fn client(&self, timeout: Duration) -> Result<Client, reqwest::Error> {
        self.build(timeout, redirect::Policy::none())
    }

    /// A client that keeps to this gate and follows redirects that pass it.
    ///
    /// # Errors
    /// If an HTTP client cannot be made.
    pub(crate) fn following_client(&self, timeout: Duration) -> Result<Client, reqwest::Error> {
        let gate = self.clone();
        let policy = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error("too many redirects");
            }
            match gate.judge(attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(refused) => attempt.error(refused),
            }
        });
        self.build(timeout, policy)
    }

    fn build(&self, timeout: Duration, policy: redirect::Policy) -> Result<Client, reqwest::Error> {
        let builder = Client::builder().timeout(timeout).connect_timeout(CONNECT).redirect(policy).referer(false);
        match self.rule {
            None => builder.build(),
            Some(rule) => builder.no_proxy().dns_resolver(Guard { rule, names: Arc::clone(&self.names) }).build(),
        }
    }
}

/// `localhost`, and names below it.
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Resolves names, and drops the addresses that must not be called.
struct Guard {
    rule: Rule,
    names: Arc<dyn Resolve>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (rule, host) = (self.rule, name.as_str().to_owned());
        let resolving = self.names.resolve(name);
        Box::pin(async move {
            let all: Vec<SocketAddr> = resolving.await?.collect();
            let kind = all.iter().find_map(|address| rule(address.ip()));
            let public: Vec<SocketAddr> = all.into_iter().filter(|address| rule(address.ip()).is_none()).collect();
            match kind {
                Some(kind) if public.is_empty() => Err(Refused::Private { host, kind }.into()),
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

/// The resolver of the system.
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
