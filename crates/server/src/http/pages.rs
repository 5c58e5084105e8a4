//! The entrance: the discovery document, the OpenAPI document, and the pages for people with their scripts.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::accept;
use super::health::COG_VERSION;
use super::state::App;
use crate::openapi;

/// What pages may load: scripts of this server, and what the server answers.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; img-src 'self' data: blob:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/", get(root))
        .route(
            "/openapi.json",
            get(|State(app): State<App>| async move { Json(openapi::document_of(app.service.geometry())) }),
        )
        .route("/playground", get(|| async { page(include_str!("../page/playground.html")) }))
        .route("/playground.js", get(|| async { script(include_str!("../page/playground.js")) }))
        .route("/docs", get(|| async { page(include_str!("../page/docs.html")) }))
        .route("/docs.js", get(|| async { script(include_str!("../page/docs.js")) }))
}

/// Cog's discovery document for programs, the playground for browsers.
async fn root(State(_): State<App>, headers: HeaderMap) -> Response {
    if accept::wants_page(&headers) {
        return page(include_str!("../page/playground.html"));
    }
    Json(discovery()).into_response()
}

fn discovery() -> Value {
    json!({
        "cog_version": COG_VERSION,
        "docs_url": "/docs",
        "healthcheck_url": "/health-check",
        "openapi_url": "/openapi.json",
        "predictions_cancel_url": "/predictions/{prediction_id}/cancel",
        "predictions_idempotent_url": "/predictions/{prediction_id}",
        "predictions_url": "/predictions",
        "shutdown_url": "/shutdown",
    })
}

fn page(html: &'static str) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(html)).into_response()
}

fn script(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], text).into_response()
}
