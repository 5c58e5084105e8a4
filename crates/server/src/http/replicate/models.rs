//! The model, its only version, and searches that find it.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::list::Page;
use super::predictions::check_model;
use crate::http::body;
use crate::http::error::Error;
use crate::http::health::COG_VERSION;
use crate::http::openai;
use crate::http::path::Path;
use crate::http::state::App;
use crate::openapi;

/// What the model is, in a line.
const DESCRIPTION: &str = "SyncDiffusion: a prompt in, a coherent panorama out";
/// What searches find besides the name.
const TOPICS: &str = "syncdiffusion panorama panoramas wide image picture stable diffusion text to image generation";
/// When Stable Diffusion 2 was released: a version shows when it was made, and nothing here knows that of its weights.
const RELEASED: &str = "2022-11-24T00:00:00Z";
/// The longest text to search for, in bytes.
const MAX_SEARCH: usize = 1024;
/// The longest string of JSON that is looked at for it: escaped, each byte takes six at most.
const MAX_ESCAPED: usize = 8 * MAX_SEARCH;

pub(super) fn router() -> Router<App> {
    let model = "/v1/models/{owner}/{name}";
    Router::new()
        // Axum knows no method QUERY.
        .route("/v1/models", any(list_or_search))
        .route("/v1/search", get(search))
        .route(model, get(show).patch(nothing).delete(nothing))
        .route(&format!("{model}/versions"), get(versions))
        .route(&format!("{model}/versions/{{version}}"), get(version).delete(nothing))
        .route(&format!("{model}/versions/{{version}}/trainings"), any(nothing))
        .route(&format!("{model}/examples"), get(examples))
        .route(&format!("{model}/readme"), get(readme))
}

/// What only Replicate can do.
pub(super) async fn nothing(request: Request) -> Error {
    Error::NoPath(request.uri().path().to_owned())
}

async fn list_or_search(State(app): State<App>, request: Request) -> Result<Response, Error> {
    let base = app.base(request.headers());
    match request.method().as_str() {
        "GET" | "HEAD" => Ok(Json(list(&app, &base)).into_response()),
        "QUERY" => {
            let (text, _held) = body::read(request, &app.bodies).await?;
            searchable("the text to search for", text.len(), MAX_ESCAPED)?;
            let text = String::from_utf8_lossy(body::unmarked(&text));
            // Clients in JavaScript send a string of JSON.
            let text: String = serde_json::from_str(&text).unwrap_or_else(|_| text.into_owned());
            searchable("the text to search for", text.len(), MAX_SEARCH)?;
            Ok(Json(Page::of(matches(&app, &text).then(|| model(&app, &base)).into_iter().collect())).into_response())
        }
        "POST" => Err(Error::NoPath(request.uri().path().to_owned())),
        _ => {
            let error = Error::NoMethod(request.method().clone(), request.uri().path().to_owned());
            let mut response = error.into_response();
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, QUERY"));
            Ok(response)
        }
    }
}

/// `GET /v1/models`, for clients of Replicate and of OpenAI at once: the former read `results`, the latter `data`.
fn list(app: &App, base: &str) -> Value {
    let results = [model(app, base)];
    json!({ "object": "list", "data": openai::cards(&app.view.model), "previous": null, "next": null, "results": results })
}

/// The model.
fn model(app: &App, base: &str) -> Value {
    let ours = &app.view.model;
    json!({
        "url": format!("{base}/playground"),
        "owner": ours.owner(),
        "name": ours.name(),
        "description": DESCRIPTION,
        "visibility": "public",
        "is_official": false,
        "run_count": 0,
        "github_url": null,
        "paper_url": "https://arxiv.org/abs/2306.05178",
        "license_url": null,
        "cover_image_url": null,
        "default_example": null,
        "latest_version": newest(app),
    })
}

/// The version, once a worker has said which model it has loaded.
fn newest(app: &App) -> Option<Value> {
    let model = app.service.model()?;
    Some(json!({
        "id": model.version,
        "created_at": RELEASED,
        "cog_version": COG_VERSION,
        "openapi_schema": openapi::document_of(app.service.geometry()),
    }))
}

async fn show(
    State(app): State<App>,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Error> {
    check_model(&app, &owner, &name)?;
    Ok(Json(model(&app, &app.base(&headers))))
}

async fn versions(
    State(app): State<App>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Page<Value>>, Error> {
    check_model(&app, &owner, &name)?;
    Ok(Json(Page::of(newest(&app).into_iter().collect())))
}

async fn version(
    State(app): State<App>,
    Path((owner, name, id)): Path<(String, String, String)>,
) -> Result<Json<Value>, Error> {
    check_model(&app, &owner, &name)?;
    let known = newest(&app).filter(|version| version["id"] == id);
    let ours = || app.service.model().map_or_else(|| "no version yet".to_owned(), |model| model.version);
    known.map(Json).ok_or_else(|| Error::NoModel { asked: format!("{owner}/{name}:{id}"), ours: ours() })
}

async fn examples(
    State(app): State<App>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Page<Value>>, Error> {
    check_model(&app, &owner, &name)?;
    Ok(Json(Page::of(Vec::new())))
}

async fn readme(State(app): State<App>, Path((owner, name)): Path<(String, String)>) -> Result<Response, Error> {
    check_model(&app, &owner, &name)?;
    let text =
        format!("# {}\n\n{DESCRIPTION}. Its inputs are in the `openapi_schema` of its version.\n", app.view.model);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// The parameters of a search.
#[derive(Debug, Deserialize)]
struct Search {
    query: String,
    limit: Option<u32>,
}

async fn search(
    State(app): State<App>,
    headers: HeaderMap,
    search: Result<Query<Search>, QueryRejection>,
) -> Result<Json<Value>, Error> {
    let Query(Search { query, limit }) =
        search.map_err(|rejection| Error::Body(rejection.status(), rejection.body_text()))?;
    searchable("`query`", query.len(), MAX_SEARCH)?;
    let found = limit.is_none_or(|limit| limit > 0) && matches(&app, &query);
    let one = || json!({ "model": model(&app, &app.base(&headers)), "metadata": { "tags": ["text-to-image"] } });
    let models: Vec<Value> = found.then(one).into_iter().collect();
    Ok(Json(json!({ "query": query, "models": models, "collections": [], "pages": [] })))
}

/// Refuses a text that is longer than what is searched for.
fn searchable(what: &str, bytes: usize, maximum: usize) -> Result<(), Error> {
    if bytes <= maximum {
        return Ok(());
    }
    let message = format!("{what} has {bytes} bytes, more than the maximum of {MAX_SEARCH}");
    Err(Error::Body(StatusCode::UNPROCESSABLE_ENTITY, message))
}

/// Whether a search finds the model: every word of it is in its name or among its topics.
fn matches(app: &App, text: &str) -> bool {
    let about = format!("{} {TOPICS}", app.view.model).to_lowercase();
    text.to_lowercase().split_whitespace().all(|word| about.contains(word))
}
