//! The list of predictions, in pages with absolute URLs of their neighbours.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use prediction::{Time, store};
use serde::{Deserialize, Serialize};

use super::view::{Pictures, Shown};
use crate::http::error::Error;
use crate::http::list::{Gathered, at_cursor, gather, held};
use crate::http::state::App;

/// Predictions on a page.
const PAGE: usize = 100;

/// The parameters of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    cursor: Option<String>,
    created_after: Option<Time>,
    created_before: Option<Time>,
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    previous: Option<String>,
    next: Option<String>,
    results: Vec<T>,
}

impl<T> Page<T> {
    /// All there is.
    pub(super) fn of(results: Vec<T>) -> Self {
        Self { previous: None, next: None, results }
    }
}

/// Predictions newest first. Instead of pictures the list has their URLs.
pub(super) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(listing) = query.map_err(|rejection| Error::Body(rejection.status(), rejection.body_text()))?;
    let mut query = store::Query::default();
    if let Some(cursor) = &listing.cursor {
        at_cursor(&mut query, cursor)?;
    }
    let _making = app.pages.begin().await?;
    // The bounds in time, as places in the order of acceptance: from the first one on, up to the second one.
    let first = optional(&app, listing.created_after).await?;
    let end = optional(&app, listing.created_before).await?;
    let from_oldest = query.after.is_some();
    if let Some(end) = end {
        query.before = Some(query.before.map_or(end, |before| before.min(end)));
    }
    if let Some(first) = first.filter(|&first| from_oldest && first > 0) {
        query.after = query.after.map(|after| after.max(first - 1));
    }
    let Gathered { mut found, more, .. } = gather(&app, query, PAGE).await?;
    let length = found.len();
    found.retain(|(seq, _)| first.is_none_or(|first| *seq >= first) && end.is_none_or(|end| *seq < end));
    let (newest, oldest) = (found.first().map(|(seq, _)| *seq), found.last().map(|(seq, _)| *seq));
    let is_first = found.len() < length || first.zip(oldest).is_some_and(|(first, oldest)| oldest <= first);
    let older = (from_oldest || more) && !is_first;
    let newer = if from_oldest { more } else { listing.cursor.is_some() };
    let base = app.base(&headers);
    let bounds = bounds(&listing);
    let link = |cursor: String| format!("{base}/v1/predictions?cursor={cursor}{bounds}");
    let next = oldest.filter(|_| older).map(|seq| link(format!("b{seq}")));
    let previous = newest.filter(|_| newer).map(|seq| link(format!("a{seq}")));
    let results: Vec<Shown<'_>> =
        found.iter().map(|(_, prediction)| app.view.of(prediction, &base, Pictures::Linked)).collect();
    let text = serde_json::to_vec(&Page { previous, next, results }).map_err(|_| Error::PagesFull)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], held(&app, text).await?).into_response())
}

/// The bounds in time, for the URL of another page.
fn bounds(Listing { created_after, created_before, .. }: &Listing) -> String {
    let one = |name, time: &Option<Time>| {
        time.map(|time| format!("&{name}={}", time.to_string().replace('+', "%2B"))).unwrap_or_default()
    };
    one("created_after", created_after) + &one("created_before", created_before)
}

async fn optional(app: &App, time: Option<Time>) -> Result<Option<u64>, Error> {
    match time {
        Some(time) => place_of(app, time).await.map(Some),
        None => Ok(None),
    }
}

/// The place in the order of acceptance before which everything is older than a time. Found by halving: it takes one
/// record for each bit of the number of predictions.
async fn place_of(app: &App, time: Time) -> Result<u64, Error> {
    let newest_before = async |before: Option<u64>| {
        let newest = app.service.list(store::Query { before, limit: 1, ..store::Query::default() }).await?;
        Ok::<_, Error>(newest.first().map(|(seq, prediction)| (*seq, prediction.created_at)))
    };
    let mut end = newest_before(None).await?.map_or(0, |(seq, _)| seq + 1);
    let mut start = 0;
    while start < end {
        let middle = start + (end - start) / 2;
        match newest_before(Some(middle + 1)).await? {
            Some((seq, created_at)) if created_at >= time && seq >= start => end = seq,
            _ => start = middle + 1,
        }
    }
    Ok(start)
}
