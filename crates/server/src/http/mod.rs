//! HTTP: Cog's endpoints and ours. One file a resource; [`app`] puts them together.
//!
//! Handlers read the request, call the service and write what it says; they decide nothing about predictions.

mod accept;
mod auth;
mod body;
mod error;
mod events;
mod files;
mod health;
mod metrics;
mod observe;
mod pages;
mod predictions;
mod shutdown;
mod webhooks;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{from_fn, from_fn_with_state, map_request};
use prediction::Service;
use prediction::webhook::signature::Secret;
use tokio_util::sync::CancellationToken;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::RequestBodyDeadlineLayer;

pub(crate) use auth::{Token, Tokens, is_open};
pub(crate) use error::Error;
pub(crate) use predictions::MOST_ID;

use crate::config::Doors;
use crate::telemetry::Figures;

/// What answers may load where nothing else is said: nothing.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// What handlers share.
#[derive(Clone)]
pub(crate) struct App {
    /// The service.
    pub(crate) service: Service,
    /// Cancelled to stop the server.
    pub(crate) stop: CancellationToken,
    /// Cancelled when nothing will happen to predictions any more.
    pub(crate) over: CancellationToken,
    /// The address that clients are told, if it is fixed.
    pub(crate) public_url: Option<String>,
    /// The port, for clients that name no host.
    pub(crate) port: u16,
    /// Who gets in.
    pub(crate) tokens: Tokens,
    /// What was recorded.
    pub(crate) figures: Figures,
    /// What webhooks are signed with, if it is shown.
    pub(crate) shown_secret: Option<Secret>,
}

/// All routes behind their doors.
pub(crate) fn app(app: App, doors: &Doors) -> Router {
    let routes = Router::new()
        .merge(pages::router())
        .merge(health::router())
        .merge(metrics::router())
        .merge(predictions::router())
        .merge(files::router())
        .merge(webhooks::router())
        .merge(shutdown::router());
    behind_doors(routes, &app, doors).with_state(app)
}

/// What every request passes, from the inside out.
fn behind_doors(routes: Router<App>, app: &App, doors: &Doors) -> Router<App> {
    let unless_said = SetResponseHeaderLayer::if_not_present;
    routes
        .layer(DefaultBodyLimit::max(usize::try_from(doors.max_body).unwrap_or(usize::MAX)))
        .layer(RequestBodyDeadlineLayer::new(doors.body_timeout))
        .layer(from_fn_with_state(app.clone(), auth::guard))
        .layer(option_layer(cors(doors)))
        .layer(map_request(name_host))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(unless_said(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(unless_said(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")))
        .layer(unless_said(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(from_fn(observe::observe))
}

/// What pages of other origins may do, if any may.
fn cors(doors: &Doors) -> Option<CorsLayer> {
    let origins = &doors.cors_origin;
    let sent = ["accept", "authorization", "cancel-after", "content-type", "last-event-id", "prefer", "x-request-id"];
    let shown = ["location", "retry-after", "x-request-id"];
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(sent.map(HeaderName::from_static))
        .expose_headers(shown.map(HeaderName::from_static))
        .max_age(std::time::Duration::from_hours(1));
    match origins.as_slice() {
        [] => None,
        all if all.iter().any(|origin| origin == "*") => Some(layer.allow_origin(tower_http::cors::Any)),
        some => Some(layer.allow_origin(some.to_vec())),
    }
}

/// HTTP/2 names the host in the URL only; handlers look for it among the headers.
async fn name_host(mut request: Request) -> Request {
    let named = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = named {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    request
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_that_tells_nothing() {
        async fn fall() {
            panic!("a secret")
        }
        let routes = Router::new()
            .route("/fall", get(fall))
            .layer(CatchPanicLayer::custom(error::panicked))
            .layer(from_fn(observe::observe));
        let request = Request::get("/fall").header("x-request-id", "r-1").body(Body::empty()).unwrap();
        let answer = routes.oneshot(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-request-id"]),
            (500, &HeaderValue::from_static("r-1"))
        );
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body, r#"{"detail":"internal server error"}"#);
    }
}
