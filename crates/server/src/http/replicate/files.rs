//! Files that clients upload to use them as inputs. Each is there for its owner alone, who names it by its URL.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use multer::{Field, Multipart};
use prediction::client_files::{ClientFile, ClientFiles, NotKept, Upload};
use prediction::input::validate::Detail;
use serde_json::{Map, Value, json};

use super::list::Page;
use crate::http::auth::Caller;
use crate::http::body;
use crate::http::error::Error;
use crate::http::path::Path;
use crate::http::state::App;

/// The longest name of a file in bytes.
const MAX_NAME: usize = 255;
/// The longest metadata of a file in bytes.
const MAX_METADATA: usize = 16 << 10;
/// The greatest number of texts that are metadata.
const MAX_TEXTS: usize = 64;
/// The type of what says none.
const UNTYPED: &str = "application/octet-stream";

pub(super) fn router() -> Router<App> {
    Router::new().route("/v1/files", get(list).post(create)).route("/v1/files/{file}", get(show).delete(remove))
}

/// A file as clients read it.
fn shown(file: &ClientFile, base: &str) -> Value {
    json!({
        "id": file.id,
        "name": file.name,
        "content_type": file.content_type,
        "size": file.size,
        "etag": file.sha256,
        "checksums": { "sha256": file.sha256 },
        "metadata": file.metadata,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "urls": { "get": format!("{base}/v1/files/{}", file.id) },
    })
}

async fn create(
    State(app): State<App>,
    Caller(owner): Caller,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Error> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind).map_err(|_| {
        let message = "send the file as `multipart/form-data` with a part `content`";
        Error::Body(StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned())
    })?;
    let (bytes, held) = body::read(request, &app.bodies).await?;
    let whole = stream::iter([Ok::<_, Infallible>(Bytes::from(bytes))]);
    let upload = Upload { owner, ..read(Multipart::new(whole, boundary)).await? };
    let files = Arc::clone(&app.files);
    let kept = tokio::task::spawn_blocking(move || {
        let kept = files.add(upload);
        drop(held);
        kept
    });
    let file = kept.await.map_err(|_| Error::BodiesFull)??;
    tracing::info!(size = file.size, "a file of a client is kept");
    Ok((StatusCode::CREATED, Json(shown(&file, &app.base(&headers)))).into_response())
}

/// Reads the parts of a body.
async fn read(mut parts: Multipart<'_>) -> Result<Upload, Error> {
    let broken =
        |error: multer::Error| Error::Body(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"));
    let (mut upload, mut content) = (Upload::default(), None);
    let (mut name, mut kind) = (None, None);
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        match part.name().unwrap_or_default() {
            "content" => {
                upload.name = part.file_name().unwrap_or_default().to_owned();
                upload.content_type = part.content_type().map(ToString::to_string).unwrap_or_default();
                content = Some(part.bytes().await.map_err(broken)?);
            }
            "metadata" => upload.metadata = metadata(part).await?,
            // An object, as clients of version 2 write it: a field for each of its texts.
            name if name.starts_with("metadata[") => {
                let key = name.trim_start_matches("metadata[").trim_end_matches(']').to_owned();
                let text = part.text().await.map_err(broken)?;
                if upload.metadata.len() >= MAX_TEXTS || key.len() + text.len() > MAX_NAME {
                    let message = format!("there are more than {MAX_TEXTS}, or one has more than {MAX_NAME} bytes");
                    return Err(Error::invalid("metadata", message));
                }
                upload.metadata.insert(key, text.into());
            }
            "filename" => name = Some(part.text().await.map_err(broken)?),
            "type" => kind = Some(part.text().await.map_err(broken)?),
            _ => {}
        }
    }
    let content = content.ok_or_else(|| {
        let loc = vec!["body".to_owned(), "content".to_owned()];
        let (msg, kind) = ("Field required".to_owned(), "value_error.missing".to_owned());
        Error::Invalid(vec![Detail { loc, msg, kind }])
    })?;
    upload.bytes = content.to_vec();
    upload.name = name.filter(|name| !name.is_empty()).unwrap_or(upload.name);
    if upload.name.is_empty() {
        "file".clone_into(&mut upload.name);
    }
    upload.content_type = kind.filter(|kind| !kind.is_empty()).unwrap_or(upload.content_type);
    if upload.content_type.is_empty() {
        UNTYPED.clone_into(&mut upload.content_type);
    }
    for (field, text) in [("filename", &upload.name), ("type", &upload.content_type)] {
        if text.len() > MAX_NAME {
            return Err(Error::invalid(field, format!("{} bytes are more than the maximum of {MAX_NAME}", text.len())));
        }
    }
    Ok(upload)
}

/// An object of JSON, as a field or as a file.
async fn metadata(part: Field<'_>) -> Result<Map<String, Value>, Error> {
    let bytes = part.bytes().await.map_err(|error| Error::Body(StatusCode::BAD_REQUEST, error.to_string()))?;
    if bytes.len() > MAX_METADATA {
        let message = format!("{} bytes are more than the maximum of {MAX_METADATA}", bytes.len());
        return Err(Error::invalid("metadata", message));
    }
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid("metadata", format!("it is not an object of JSON: {error}")))
}

/// All files of a client, of which there are not many.
async fn list(State(app): State<App>, Caller(owner): Caller, headers: HeaderMap) -> Result<Json<Page<Value>>, Error> {
    let base = app.base(&headers);
    let own = beside(&app, move |files| files.list(&owner)).await?;
    Ok(Json(Page::of(own.iter().map(|file| shown(file, &base)).collect())))
}

/// Does something that may block with the files.
async fn beside<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&ClientFiles) -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let files = Arc::clone(&app.files);
    let done = tokio::task::spawn_blocking(move || work(&files)).await;
    Ok(done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(NotKept::Io)?)
}

async fn show(
    State(app): State<App>,
    Caller(owner): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Error> {
    let file = beside(&app, move |files| files.get(&owner, &id)).await?.ok_or(Error::NoFile)?;
    Ok(Json(shown(&file, &app.base(&headers))))
}

async fn remove(State(app): State<App>, Caller(owner): Caller, Path(id): Path<String>) -> Result<StatusCode, Error> {
    let removed = beside(&app, move |files| files.remove(&owner, &id)).await?;
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(Error::NoFile) }
}
