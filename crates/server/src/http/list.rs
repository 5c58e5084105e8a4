//! The list of predictions, in pages that are bounded in length and in size.
//!
//! What always holds: few pages are made at once, and those that clients are still reading are bounded in sum.

use std::io;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prediction::shown::shown_up_to;
use prediction::store;
use prediction::wire::{Output, escape};
use prediction::{Prediction, Status};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::error::Error;
use super::state::App;

/// Predictions on a page of the list by default.
const PAGE: usize = 20;
/// Most predictions on a page.
const MAX_PAGE: usize = 100;
/// The bytes of a page, unless its first prediction alone has more.
const MAX_BYTES: usize = 4 << 20;
/// Predictions that are read at a time.
const CHUNK: usize = 8;
/// The longest text to search for, in bytes.
const MAX_TEXT: usize = 256;

/// The parameters of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    cursor: Option<String>,
    status: Option<String>,
    q: Option<String>,
    limit: Option<usize>,
}

/// A page of the list.
#[derive(Debug, Serialize)]
struct Page {
    next: Option<String>,
    previous: Option<String>,
    results: Vec<Prediction>,
}

/// Predictions newest first. Instead of pictures the list has their URLs. A search for a text may end before the page
/// is full, and then `next` or `previous` leads on.
pub(super) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    query: Result<Query<Listing>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Error> {
    let Query(listing) = query.map_err(|rejection| Error::Body(rejection.status(), rejection.body_text()))?;
    let wrong = |message: String| Error::Body(StatusCode::UNPROCESSABLE_ENTITY, message);
    let limit = listing.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(wrong(format!("`limit` is `{limit}`, not between 1 and {MAX_PAGE}")));
    }
    let status = match listing.status.as_deref() {
        None => None,
        Some(name) => Some(Status::from_name(name).ok_or_else(|| {
            let names = Status::ALL.map(Status::name).join("`, `");
            wrong(format!("`status` is `{}`, not one of `{names}`", shown_up_to(name, 100)))
        })?),
    };
    let text = listing.q.as_deref().filter(|text| !text.is_empty());
    if let Some(text) = text.filter(|text| text.len() > MAX_TEXT) {
        return Err(wrong(format!("`q` has {} bytes, more than the maximum of {MAX_TEXT}", text.len())));
    }
    let mut query = store::Query { status, text, ..store::Query::default() };
    if let Some(cursor) = &listing.cursor {
        at_cursor(&mut query, cursor)?;
    }
    let _making = app.pages.begin().await?;
    let Gathered { found, more, looked } = gather(&app, query, limit).await?;
    let mut filter = status.map_or_else(String::new, |status| format!("&status={}", status.name()));
    if let Some(text) = text {
        filter.push_str("&q=");
        filter.push_str(&escape(text));
    }
    let base = app.base(&headers);
    let link = |cursor: String| format!("{base}/predictions?cursor={cursor}&limit={limit}{filter}");
    let (mut newest, mut oldest) = (found.first().map(|(seq, _)| *seq), found.last().map(|(seq, _)| *seq));
    // Where a search has ended, it goes on.
    let further = if query.after.is_some() { &mut newest } else { &mut oldest };
    *further = looked.or(*further);
    let older = if query.after.is_some() { true } else { more };
    let newer = if query.after.is_some() { more } else { query.before.is_some() };
    let next = oldest.filter(|_| older).map(|seq| link(format!("b{seq}")));
    let previous = newest.filter(|_| newer).map(|seq| link(format!("a{seq}")));
    let results = found.into_iter().map(|(_, prediction)| prediction).collect();
    let text = serde_json::to_vec(&Page { next, previous, results }).map_err(|_| Error::PagesFull)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], held(&app, text).await?).into_response())
}

/// Has a query begin where a cursor says.
pub(super) fn at_cursor(query: &mut store::Query<'_>, cursor: &str) -> Result<(), Error> {
    // The search begins one after the place, so the greatest one is not valid.
    let place =
        cursor.get(1..).and_then(|place| place.parse::<u64>().ok()).filter(|&place| i64::try_from(place).is_ok());
    match (cursor.as_bytes().first(), place) {
        (Some(b'b'), Some(place)) => query.before = Some(place),
        (Some(b'a'), Some(place)) => query.after = Some(place),
        _ => {
            let message = format!("`cursor` is `{}`, which is not a cursor of a list", shown_up_to(cursor, 100));
            return Err(Error::Body(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
    }
    Ok(())
}

/// A page, with room for it until it is sent.
pub(super) async fn held(app: &App, text: Vec<u8>) -> Result<Bytes, Error> {
    Ok(Bytes::from_owner(Held { _room: app.pages.hold(text.len()).await?, text }))
}

/// A page with the room that it takes until it is sent.
struct Held {
    text: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// What a page is made of.
pub(super) struct Gathered {
    /// Newest first.
    pub(super) found: Vec<(u64, Prediction)>,
    /// Whether there are more where they end.
    pub(super) more: bool,
    /// Where a search ended before the page was full.
    looked: Option<u64>,
}

/// The predictions of a page.
pub(super) async fn gather(app: &App, mut query: store::Query<'_>, limit: usize) -> Result<Gathered, Error> {
    let from_oldest = query.after.is_some();
    let (mut found, mut size, mut looked) = (Vec::new(), 0, None);
    let more = 'page: loop {
        query.limit = CHUNK.min(limit + 1 - found.len());
        let (mut chunk, ended) = app.service.search(query).await?;
        // One that is short may lack records that cannot be read.
        let (Some(newest), Some(oldest)) = (chunk.first().map(|(seq, _)| *seq), chunk.last().map(|(seq, _)| *seq))
        else {
            looked = ended;
            break ended.is_some();
        };
        if from_oldest {
            chunk.reverse();
            query.after = Some(newest);
        } else {
            query.before = Some(oldest);
        }
        for (seq, prediction) in chunk {
            let prediction = with_link(prediction);
            size += length(&prediction);
            if found.len() == limit || (size > MAX_BYTES && !found.is_empty()) {
                break 'page true;
            }
            found.push((seq, prediction));
        }
        if ended.is_some() {
            looked = ended;
            break true;
        }
    };
    if from_oldest {
        found.reverse();
    }
    Ok(Gathered { found, more, looked })
}

/// The prediction of a list, with its pictures as URLs.
fn with_link(mut prediction: Prediction) -> Prediction {
    if prediction.status == Status::Succeeded && prediction.output.is_none() {
        let links = (0..prediction.input.num_outputs).map(|n| prediction.urls.picture(n).into());
        prediction.output = Some(Output::of(links.collect()));
    }
    prediction
}

/// The length of a prediction as JSON.
fn length(prediction: &Prediction) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // What cannot be written has no length.
    let _ = serde_json::to_writer(&mut counter, prediction);
    counter.0
}
