//! Pictures under names that nobody can guess: GET and HEAD `/files/{name}`, in parts on request. They are what was
//! drawn, and what was given.
//!
//! Everybody who knows the name may see the picture, so no token is needed. A name refers to the same bytes as long as
//! it exists.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_range_header::{EndPosition, ParsedRanges, StartPosition, parse_range_header};
use prediction::output;

use super::error::Error;
use super::path::Path;
use super::state::App;

pub(super) fn router() -> Router<App> {
    Router::new().route("/files/{name}", get(file))
}

async fn file(
    State(app): State<App>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let picture = app.service.file(&name).await?.ok_or(Error::NoFile)?;
    let format = output::format(&picture);
    // The store knows the name, so it is one of ours: plain ASCII.
    let tag = format!("\"{}\"", name.split('.').next().unwrap_or_default());
    let short: String = name.chars().take(8).collect();
    let mut answer = HeaderMap::new();
    let mut set =
        |name, text: &str| answer.insert(name, HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("")));
    set(header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    set(header::ETAG, &tag);
    let unchanged =
        |list: &str| list.split(',').any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == tag);
    if text(&headers, header::IF_NONE_MATCH).is_some_and(unchanged) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    set(header::CONTENT_TYPE, format.media());
    set(header::CONTENT_DISPOSITION, &format!("inline; filename=\"panorama-{short}.{}\"", format.extension()));
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::ACCEPT_RANGES, "bytes");
    // Of a HEAD the RFC has it ignored.
    let range = text(&headers, header::RANGE).filter(|_| method == Method::GET);
    let range = range.filter(|_| text(&headers, header::IF_RANGE).is_none_or(|is| is == tag));
    let length = picture.len() as u64;
    let parsed = range.and_then(|range| parse_range_header(range).ok()).filter(|parsed| is_one(parsed, length));
    let Some(parsed) = parsed else { return Ok((answer, picture.to_vec()).into_response()) };
    let Some(range) = parsed.validate(length).ok().and_then(|ranges| ranges.into_iter().next()) else {
        let range = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
        return Ok((StatusCode::RANGE_NOT_SATISFIABLE, range).into_response());
    };
    set(header::CONTENT_RANGE, &format!("bytes {}-{}/{length}", range.start(), range.end()));
    let part = picture[*range.start() as usize..=*range.end() as usize].to_vec();
    Ok((StatusCode::PARTIAL_CONTENT, answer, part).into_response())
}

/// Whether one part is requested. Several parts, and a suffix longer than the file, are answered with the whole file,
/// as the RFC allows; a range that is not valid, such as one that ends before it begins, is ignored.
fn is_one(parsed: &ParsedRanges, length: u64) -> bool {
    let [one] = parsed.ranges.as_slice() else { return false };
    match (one.start, one.end) {
        (StartPosition::FromLast(bytes), _) => bytes < length,
        (StartPosition::Index(first), EndPosition::Index(last)) => first <= last,
        (StartPosition::Index(_), EndPosition::LastByte) => true,
    }
}

/// A header as text.
fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
