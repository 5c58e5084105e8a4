//! The entrance: the discovery document, the OpenAPI document, and the pages for people with their files.

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::accept;
use super::error::Error;
use super::health::COG_VERSION;
use super::path::Path;
use super::state::App;
use crate::openapi;
use crate::page::{DOCS, File, PLAYGROUND, VERSION, VIEW};

/// What pages may load: files of this server, and what it answers. Nothing is made from text.
macro_rules! policy {
    ($ancestors:literal) => {
        concat!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; ",
            "connect-src 'self'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; ",
            "trusted-types 'none'; frame-ancestors ",
            $ancestors
        )
    };
}

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/", get(root))
        .route(
            "/openapi.json",
            get(|State(app): State<App>| async move { Json(openapi::document_of(app.service.geometry())) }),
        )
        .route("/playground", get(|| async { page(&PLAYGROUND, policy!("'none'")) }))
        .route("/docs", get(|| async { page(&DOCS, policy!("'none'")) }))
        // Whoever has the link of one picture may show it in a page of theirs.
        .route("/view/{id}", get(|| async { page(&VIEW, policy!("*")) }))
        .route("/page/{version}/{name}", get(file))
}

/// Cog's discovery document for programs, the playground for browsers.
async fn root(State(_): State<App>, headers: HeaderMap) -> Response {
    if accept::wants_page(&headers) {
        return page(&PLAYGROUND, policy!("'none'"));
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

/// A page names the version of its files, so it is asked for each time.
fn page(html: &'static str, policy: &'static str) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-cache")], Html(html)).into_response()
}

/// A file of the pages. A page that was opened before an update still finds what it has yet to load.
async fn file(Path((version, name)): Path<(String, String)>, uri: Uri) -> Result<Response, Error> {
    let file = File::find(&name).ok_or_else(|| Error::NoPath(uri.path().to_owned()))?;
    let kept = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-cache" };
    Ok(([(header::CONTENT_TYPE, file.kind()), (header::CACHE_CONTROL, kept)], file.text()).into_response())
}
