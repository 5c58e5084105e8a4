//! Predictions as server-sent events: those of Cog (start, output, log, metric, completed, error) and `progress`, with
//! numbers, so that `Last-Event-ID` resumes. Streams that ask for it have `preview`, too, without numbers.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::stream::{self, Stream};
use prediction::Prediction;
use prediction::feed::{Event, Item};
use prediction::preview::Preview;
use prediction::service::{Follower, News};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::accept::Prefer;
use super::error::Error;
use super::path::Path;
use super::state::App;

/// Silence after which a comment is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Keeps nginx from holding events back.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The id of the end of a prediction that was read from the store, where events have no numbers.
const ENDED: &str = "completed";

/// What a stream asks for. In a browser an `EventSource` cannot send headers.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    preview: Option<bool>,
}

/// GET `/predictions/{id}/stream`.
pub(super) async fn stream(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Error> {
    let last = headers.get("last-event-id").and_then(|last| last.to_str().ok());
    if last == Some(ENDED) {
        // A browser does not reconnect after this.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let Query(asked) = query.map_err(|rejection| Error::Body(rejection.status(), rejection.body_text()))?;
    let previews = asked.preview.unwrap_or_else(|| Prefer::read(&headers).preview);
    attach(&app, &id, last.and_then(|last| last.parse().ok()).unwrap_or(0), previews).await
}

/// Follows a prediction that exists, from the event after number `after` on, with previews or without.
pub(super) async fn attach(app: &App, id: &str, after: u64, previews: bool) -> Result<Response, Error> {
    if let Some(follower) = app.service.follow(id, after).await? {
        return Ok(follow(app, follower, previews));
    }
    let ended = app.service.get(id).await?.ok_or_else(|| Error::Unknown(id.to_owned()))?;
    let frame = frame("completed", &ended).id(ENDED);
    Ok(answer(stream::once(async { Ok::<_, Infallible>(frame) })))
}

/// Answers with the events of a follower. Dropping the response drops the follower.
pub(super) fn follow(app: &App, follower: Follower, previews: bool) -> Response {
    answer(frames(app, if previews { follower.watching() } else { follower }))
}

/// Answers with events.
pub(super) fn answer(frames: impl Stream<Item = Result<Frame, Infallible>> + Send + 'static) -> Response {
    let events = Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"));
    ([(UNBUFFERED, HeaderValue::from_static("no"))], events).into_response()
}

/// The events of a follower as frames, until the prediction or the server ends. One that fell behind gets an error, and
/// the stream ends.
fn frames(app: &App, follower: Follower) -> impl Stream<Item = Result<Frame, Infallible>> + use<> {
    stream::unfold(Some((app.over.clone(), follower)), |state| async {
        let (over, mut follower) = state?;
        // What has happened is told even if the server ends in the same moment.
        let news = match over.run_until_cancelled(follower.next()).await {
            Some(news) => news,
            None => follower.next().now_or_never().flatten(),
        };
        match news {
            Some(News::Item(item)) => Some((Ok(name(follower.id(), &item)), Some((over, follower)))),
            Some(News::Preview(preview)) => Some((Ok(show(&preview)), Some((over, follower)))),
            None => follower.left().map(|why| (Ok(frame("error", &json!({ "error": why }))), None)),
            Some(News::Missed(skipped)) => {
                let error = json!({ "error": "SSE stream replay truncated; events were dropped", "skipped": skipped });
                Some((Ok(frame("error", &error)), None))
            }
        }
    })
}

/// An event as a frame.
fn name(id: &str, item: &Item) -> Frame {
    let frame = match &item.event {
        Event::Start => frame("start", &json!({ "id": id, "status": "processing" })),
        Event::Log(line) => frame("log", &json!({ "data": &**line, "source": "stderr" })),
        Event::Progress { progress, step, steps, seconds_left } => frame(
            "progress",
            &json!({ "progress": progress, "seconds_left": seconds_left, "step": step, "steps": steps }),
        ),
        Event::Metric { name, value } => frame("metric", &json!({ "mode": "replace", "name": name, "value": value })),
        Event::Output(picture, index) => frame("output", &json!({ "chunk": &**picture, "index": index })),
        Event::Completed(prediction) => frame::<Prediction>("completed", prediction),
    };
    frame.id(item.id.to_string())
}

/// A preview as a frame, without an id: a client that resumes does not miss it.
fn show(Preview { step, width, height, image }: &Preview) -> Frame {
    frame("preview", &json!({ "image": &**image, "step": step, "width": width, "height": height }))
}

fn frame<T: Serialize>(name: &str, data: &T) -> Frame {
    // JSON has no line ends, so this fails only for a value that JSON cannot represent; none of these is one.
    let frame = Frame::default().event(name);
    match serde_json::to_string(data) {
        Ok(data) => frame.data(data),
        Err(error) => frame.comment(error.to_string()),
    }
}
