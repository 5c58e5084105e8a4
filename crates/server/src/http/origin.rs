//! Which pages may use a server that needs no token. A browser sends what any page asks it to send, also to a server
//! that only its own machine can reach; so requests of pages of other origins are refused.
//!
//! What always holds: clients other than browsers, the server's own pages and the origins of `--cors-origin` are let
//! through, and so is what only reads pages, health and files.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::auth::{is_open, password};
use super::error::Error;
use super::state::App;
use crate::config::Access;

/// The address that a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What decides.
#[derive(Debug)]
pub(super) struct Rules {
    /// Whether requests are checked: not if they need a token, which no foreign page has.
    checked: bool,
    /// Origins of `--cors-origin`.
    allowed: Vec<String>,
    /// Scheme, host and port of `--public-url`.
    public: Option<Uri>,
}

impl Rules {
    pub(super) fn new(access: &Access, app: &App) -> Arc<Self> {
        let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_ascii_lowercase();
        Arc::new(Self {
            checked: app.tokens.is_empty(),
            allowed: access.cors_origin.iter().map(text).collect(),
            public: app.public_url.as_deref().and_then(|url| url.parse().ok()),
        })
    }

    /// Why a request is refused, if it is.
    fn refusal(&self, open: bool, method: &Method, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<Error> {
        let reads = *method == Method::GET || *method == Method::HEAD;
        // A preflight does nothing, and its answer allows nothing that the configuration does not. A browser that knows
        // a password sends it for foreign pages, too.
        if !(self.checked || password(headers).is_some()) || *method == Method::OPTIONS || (reads && open) {
            return None;
        }
        let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase);
        let host = value("host");
        if peer.is_some_and(|peer| peer.to_canonical().is_loopback())
            && let Some(host) = &host
            && !self.is_known_host(host)
        {
            return Some(Error::Foreign(
                "`Host` is not a name of this server; use its IP address or `localhost`, or start it with \
                 `--public-url` or `--api-token`",
            ));
        }
        let origin = value("origin");
        let allowed = |origin: &str| self.allowed.iter().any(|allowed| allowed == "*" || allowed == origin);
        if origin.as_deref().is_some_and(allowed) || self.allowed.iter().any(|allowed| allowed == "*") {
            return None;
        }
        let own = |origin: &str| {
            let named = origin.split_once("://").map(|(_, named)| named);
            named.is_some() && (named == host.as_deref() || self.is_public(origin))
        };
        let foreign = match value("sec-fetch-site").as_deref() {
            Some("same-origin" | "none") => false,
            // A link that somebody follows shows what the page that has it cannot read.
            Some(_) if reads && value("sec-fetch-mode").as_deref() == Some("navigate") => false,
            Some(_) => true,
            None => origin.as_deref().is_some_and(|origin| !own(origin)),
        };
        foreign.then_some(Error::Foreign(
            "a page of another origin may not use this server; start it with `--cors-origin` to allow it, or with \
             `--api-token`",
        ))
    }

    /// Whether a `Host` is an IP address, `localhost` or the host of `--public-url`.
    fn is_known_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
            _ => host,
        };
        let name = name.trim_end_matches('.');
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        bare.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.public.as_ref().and_then(Uri::host).is_some_and(|public| public.eq_ignore_ascii_case(name))
    }

    fn is_public(&self, origin: &str) -> bool {
        let public = self.public.as_ref();
        let parts = public.and_then(|public| Some((public.scheme_str()?, public.authority()?.as_str())));
        parts.is_some_and(|(scheme, authority)| origin.eq_ignore_ascii_case(&format!("{scheme}://{authority}")))
    }
}

/// Refuses what pages of other origins send.
pub(super) async fn guard(
    State(rules): State<Arc<Rules>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let open = route.is_some_and(|route| is_open(route.as_str()));
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    match rules.refusal(open, request.method(), request.headers(), peer) {
        Some(refused) => {
            tracing::warn!("a request of a page of another origin was refused");
            refused.into_response()
        }
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn rules(allowed: &[&str], public: Option<&str>) -> Rules {
        Rules {
            checked: true,
            allowed: allowed.iter().map(|&origin| origin.to_owned()).collect(),
            public: public.map(|url| url.parse().unwrap()),
        }
    }

    fn passes(rules: &Rules, open: bool, method: &Method, peer: &str, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        rules.refusal(open, method, &headers.collect(), Some(peer.parse().unwrap())).is_none()
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let (get, post, here) = (Method::GET, Method::POST, ("host", "127.0.0.1:5000"));
        let plain = rules(&[], Some("https://panorama.example.com/pano"));
        let sent = |rules: &Rules, method: &Method, headers: &[(&'static str, &str)]| {
            passes(rules, false, method, "127.0.0.1", &[&[here], headers].concat())
        };
        for (expected, headers) in [
            (true, &[][..]),
            (true, &[("sec-fetch-site", "same-origin"), ("origin", "https://behind-a-proxy.example")]),
            (true, &[("sec-fetch-site", "none")]),
            (false, &[("sec-fetch-site", "cross-site")]),
            (false, &[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:3000")]),
            (false, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]),
            (true, &[("origin", "http://127.0.0.1:5000")]),
            (true, &[("origin", "https://panorama.example.com")]),
            (false, &[("origin", "https://evil.example")]),
            (false, &[("origin", "null")]),
            (false, &[("origin", "http://127.0.0.1:3000")]),
        ] {
            assert_eq!(sent(&plain, &post, headers), expected, "{headers:?}");
        }
        assert!(!sent(&plain, &get, &[("sec-fetch-site", "cross-site")]), "the list is not a page");
        assert!(sent(&plain, &get, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
        assert!(passes(&plain, true, &get, "127.0.0.1", &[("sec-fetch-site", "cross-site"), ("host", "x")]));
        assert!(!passes(&plain, true, &post, "127.0.0.1", &[here, ("sec-fetch-site", "cross-site")]));
        let app = [("sec-fetch-site", "cross-site"), ("origin", "https://app.example")];
        assert!(sent(&rules(&["https://app.example"], None), &post, &app));
        assert!(!sent(&rules(&["https://other.example"], None), &post, &app));
        assert!(sent(&rules(&["*"], None), &post, &app));
        assert!(sent(&Rules { checked: false, ..plain }, &post, &app), "with tokens a page needs one");
    }

    #[test]
    fn hosts_are_checked_on_loopback_connections() {
        let plain = rules(&[], Some("https://panorama.example.com:8443/pano"));
        let from = |peer: &str, host: &str| passes(&plain, false, &Method::POST, peer, &[("host", host)]);
        for host in ["localhost", "LOCALHOST:5000", "127.0.0.1", "10.1.2.3:80", "[::1]:5000", "[::1]", "a.localhost"] {
            assert!(from("127.0.0.1", host), "{host}");
        }
        assert!(from("127.0.0.1", "panorama.example.com") && from("::1", "Panorama.example.com:443"));
        for host in ["evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!from("127.0.0.1", host) && !from("::ffff:127.0.0.1", host) && !from("::1", host), "{host}");
            assert!(from("192.168.1.7", host), "{host}");
        }
        assert!(passes(&plain, false, &Method::POST, "127.0.0.1", &[]), "HTTP/1.0 names no host");
    }
}
