//! HTTP: Cog's endpoints and ours. One file for each resource; [`app`] puts them together.
//!
//! Handlers translate between HTTP and the service; they decide nothing about predictions.

pub(crate) mod a1111;
mod accept;
pub(crate) mod auth;
pub(crate) mod body;
mod common;
mod error;
mod events;
mod files;
mod head;
mod health;
pub(crate) mod idempotency;
mod links;
mod list;
mod made;
mod metrics;
mod observe;
mod openai;
mod origin;
mod pages;
mod path;
mod predictions;
mod replicate;
mod room;
mod shutdown;
mod state;
mod unread;
mod usage;
mod webhooks;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state, map_request};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::RequestBodyDeadlineLayer;

pub(crate) use origin::Peer;
pub(crate) use replicate::View;
pub(crate) use room::{Bodies, Pages};
pub(crate) use state::App;

use self::error::Error;
use crate::config::{Access, Limits};

/// What a response may load unless it says otherwise: nothing.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// All routes, with what every request passes.
pub(crate) fn app(app: App, access: &Access, limits: &Limits) -> Router {
    let routes = Router::new()
        .merge(pages::router())
        .merge(health::router())
        .merge(metrics::router())
        .merge(predictions::router())
        .merge(files::router())
        .merge(links::router())
        .merge(webhooks::router())
        .merge(usage::router())
        .merge(replicate::router())
        .merge(shutdown::router())
        .merge(openai::router())
        .merge(a1111::router())
        .fallback(async |uri: Uri| Error::NoPath(uri.path().to_owned()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| Error::NoMethod(method, uri.path().to_owned()));
    layered(routes, &app, access, limits).with_state(app)
}

/// What every request passes, from the inside out.
fn layered(routes: Router<App>, app: &App, access: &Access, limits: &Limits) -> Router<App> {
    let if_missing = SetResponseHeaderLayer::if_not_present;
    routes
        .layer(DefaultBodyLimit::max(usize::try_from(limits.max_body).unwrap_or(usize::MAX)))
        .layer(RequestBodyDeadlineLayer::new(limits.body_timeout))
        .layer(from_fn_with_state(app.clone(), auth::guard))
        .layer(from_fn_with_state(origin::Rules::new(access, app), origin::guard))
        .layer(option_layer(cors(access)))
        .layer(map_request(name_host))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(from_fn(openai::dress))
        .layer(from_fn(a1111::dress))
        .layer(from_fn(replicate::dress))
        .layer(if_missing(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(if_missing(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")))
        .layer(if_missing(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(from_fn(unread::close))
        .layer(from_fn(observe::observe))
}

/// What pages of other origins may do, if any are allowed.
fn cors(access: &Access) -> Option<CorsLayer> {
    let origins = &access.cors_origin;
    let shown = ["location", "retry-after", "x-request-id"];
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        // Clients of several APIs send headers of their own (`x-stainless-*`, `idempotency-key`). Which ones a page of
        // an allowed origin may send protects nothing.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(shown.map(HeaderName::from_static))
        .max_age(std::time::Duration::from_hours(1));
    match origins.as_slice() {
        [] => None,
        all if all.iter().any(|origin| origin == "*") => Some(layer.allow_origin(tower_http::cors::Any)),
        some => Some(layer.allow_origin(some.to_vec())),
    }
}

/// HTTP/2 has the host in the URL only; handlers look for it in the headers.
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
    async fn a_panic_is_an_answer_that_reveals_nothing() {
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
