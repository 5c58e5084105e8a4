//! Events and pictures of a prediction under names that need no token: clients fetch them without one.
//!
//! Their stream knows four events: `output`, `logs`, `error` and `done`. Clients fail at any other, and read nothing
//! before an event that has an id and data.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::Event as Frame;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use prediction::feed::{Event, Item};
use prediction::service::{Follower, News};
use prediction::wire::Output;
use prediction::{Prediction, Status};
use serde_json::{Value, json};

use super::view::{Made, Pictures, View};
use crate::http::error::Error;
use crate::http::events::answer;
use crate::http::path::Path;
use crate::http::predictions::picture_of;
use crate::http::state::App;

/// Keeps nginx from holding events back.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) fn router() -> Router<App> {
    Router::new().route("/v1/files/stream/{name}", get(events)).route("/v1/files/output/{name}", get(picture))
}

/// The picture of a prediction.
async fn picture(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Error> {
    let (made, n) = app.view.picture_of(&name).ok_or(Error::NoFile)?;
    // In this order: the id may be used again in between, and the picture is then of before.
    let picture = picture_of(&app, made.id.clone(), n, None).await.map_err(|error| match error {
        Error::Unknown(_) | Error::NoPicture(..) => Error::NoFile,
        other => other,
    })?;
    app.service.get(&made.id).await?.filter(|known| made.is(known)).ok_or(Error::NoFile)?;
    Ok(picture)
}

/// The events of a prediction, from its beginning, also after its end.
async fn events(State(app): State<App>, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Error> {
    let made = app.view.stream_of(&name).ok_or(Error::NoFile)?;
    let last = headers.get("last-event-id").and_then(|last| last.to_str().ok()?.parse().ok()).unwrap_or(0);
    // In this order, as above.
    let follower = app.service.follow(&made.id, last).await?;
    let known = app.service.get(&made.id).await?.filter(|known| made.is(known)).ok_or(Error::NoFile)?;
    let writer = Writer { view: app.view.clone(), base: app.base(&headers), made };
    let mut response = if let Some(follower) = follower {
        answer(frames(&app, follower, writer))
    } else {
        answer(stream::iter(writer.ended(&known).into_iter().map(Ok::<_, Infallible>)))
    };
    response.headers_mut().insert(UNBUFFERED, HeaderValue::from_static("no"));
    Ok(response.into_response())
}

/// The events of a follower, until the prediction or the server ends.
fn frames(
    app: &App,
    follower: Follower,
    writer: Writer,
) -> impl Stream<Item = Result<Frame, Infallible>> + Send + 'static + use<> {
    let start = (app.over.clone(), follower, writer, VecDeque::new());
    stream::unfold(start, |(over, mut follower, writer, mut waiting)| async move {
        loop {
            if let Some(frame) = waiting.pop_front() {
                return Some((Ok(frame), (over, follower, writer, waiting)));
            }
            match over.run_until_cancelled(follower.next()).await.flatten()? {
                News::Item(item) => waiting.extend(writer.item(&item)),
                // What was missed is in the logs of the prediction; the picture and the end are still to come.
                News::Missed(_) | News::Preview(_) => {}
            }
        }
    })
}

/// Writes events.
#[derive(Debug)]
struct Writer {
    view: View,
    base: String,
    /// The prediction.
    made: Made,
}

impl Writer {
    /// An event of a prediction that runs.
    fn item(&self, Item { id: number, event }: &Item) -> Vec<Frame> {
        let at = |n: usize| format!("{number}:{n}");
        match event {
            Event::Log(line) => vec![frame("logs", &at(0), line.trim_end_matches(['\r', '\n']))],
            Event::Output(picture, n) => {
                let text = self.view.picture((&self.made, *n), picture, &self.base, Pictures::Whole);
                vec![frame("output", &at(0), &text)]
            }
            Event::Completed(prediction) => end(prediction, at),
            Event::Start | Event::Progress { .. } | Event::Metric { .. } => Vec::new(),
        }
    }

    /// All events of a prediction that has ended.
    fn ended(&self, prediction: &Prediction) -> Vec<Frame> {
        let mut frames = Vec::new();
        let logs = prediction.logs.trim_end_matches(['\r', '\n']);
        if !logs.is_empty() {
            frames.push(frame("logs", "1:0", logs));
        }
        for (n, picture) in (0..).zip(prediction.output.iter().flat_map(Output::pictures)) {
            let text = self.view.picture((&self.made, n), picture, &self.base, Pictures::Whole);
            frames.push(frame("output", &format!("2:{n}"), &text));
        }
        frames.extend(end(prediction, |n| format!("3:{n}")));
        frames
    }
}

/// How a prediction ended.
fn end(prediction: &Prediction, at: impl Fn(usize) -> String) -> Vec<Frame> {
    let done = |n: usize, data: &Value| frame("done", &at(n), &data.to_string());
    match prediction.status {
        Status::Failed => {
            let detail = json!({ "detail": prediction.error.as_deref().unwrap_or_default() });
            vec![frame("error", &at(0), &detail.to_string()), done(1, &json!({ "reason": "error" }))]
        }
        Status::Canceled => vec![done(0, &json!({ "reason": "canceled" }))],
        _ => vec![done(0, &json!({}))],
    }
}

fn frame(name: &str, id: &str, data: &str) -> Frame {
    Frame::default().event(name).id(id).data(data)
}
