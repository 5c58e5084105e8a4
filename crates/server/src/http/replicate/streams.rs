//! Events and pictures of a prediction under names that need no token: clients fetch them without one.
//!
//! Their stream knows four events: `output`, `logs`, `error` and `done`. Clients fail at any other, and read nothing
//! before an event that has an id and data.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::Event as Frame;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use prediction::feed::{Event, Item};
use prediction::service::{Follower, News};
use prediction::wire::Output;
use prediction::{Prediction, Status};
use serde_json::{Value, json};

use super::view::{Pictures, View};
use crate::http::error::Error;
use crate::http::events::answer;
use crate::http::made::Made;
use crate::http::path::Path;
use crate::http::predictions::picture_of;
use crate::http::state::App;

/// The id of the last event, `done`.
const DONE: &str = "done";
/// What the ids of the others begin with if they were read from the store, where events have no numbers.
const STORED: &str = "stored";

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
    app.service.bare(&made.id).await?.filter(|known| made.is(known)).ok_or(Error::NoFile)?;
    Ok(picture)
}

/// What a client has got already: `Last-Event-ID`, which is the number of an event and that of a frame of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Got {
    event: u64,
    frame: usize,
}

impl Got {
    /// Reads an id, if it is that of an event with a number.
    fn read(id: &str) -> Option<Self> {
        let (event, frame) = id.split_once(':').unwrap_or((id, "0"));
        Some(Self { event: event.parse().ok()?, frame: frame.parse().ok()? })
    }

    /// How many of the frames of an event it has.
    fn of(self, event: u64) -> usize {
        if event == self.event { self.frame.saturating_add(1) } else { 0 }
    }
}

/// How many frames of those that are read from the store a client has got, by the id of the last.
fn had(id: &str) -> Option<usize> {
    let frame: usize = id.strip_prefix(STORED)?.strip_prefix(':')?.parse().ok()?;
    Some(frame.saturating_add(1))
}

/// The events of a prediction, from its beginning or after what the client has got, also after its end.
async fn events(State(app): State<App>, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Error> {
    let made = app.view.stream_of(&name).ok_or(Error::NoFile)?;
    let last = headers.get("last-event-id").and_then(|last| last.to_str().ok());
    if last == Some(DONE) {
        // A browser does not reconnect after this.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let got = last.and_then(Got::read);
    // In this order, as above. The frames of the last event that the client has not got are to come.
    let follower = app.service.follow(&made.id, got.map_or(0, |got| got.event.saturating_sub(1))).await?;
    let known = app.service.get(&made.id).await?.filter(|known| made.is(known)).ok_or(Error::NoFile)?;
    let writer = Writer { view: app.view.clone(), base: app.base(&headers), made };
    if let Some(follower) = follower {
        return Ok(answer(frames(&app, follower, got, writer)));
    }
    let had = match (last.and_then(had), got) {
        (Some(had), _) => had,
        // The logs, of which it had some while the prediction ran.
        (None, Some(_)) => usize::from(!known.logs.trim_end_matches(['\r', '\n']).is_empty()),
        (None, None) => 0,
    };
    Ok(answer(stream::iter(writer.ended(&known).into_iter().skip(had).map(Ok::<_, Infallible>))))
}

/// The events of a follower after what the client has got, until the prediction or the server ends.
fn frames(
    app: &App,
    follower: Follower,
    got: Option<Got>,
    writer: Writer,
) -> impl Stream<Item = Result<Frame, Infallible>> + Send + 'static + use<> {
    let start = (app.over.clone(), follower, got, writer, VecDeque::new());
    stream::unfold(start, |(over, mut follower, mut got, writer, mut waiting)| async move {
        loop {
            if let Some(frame) = waiting.pop_front() {
                return Some((Ok(frame), (over, follower, got, writer, waiting)));
            }
            match over.run_until_cancelled(follower.next()).await.flatten()? {
                News::Item(item) => {
                    // Only the first can be one that it has got: numbers of another process mean nothing here.
                    let had = got.take().map_or(0, |got| got.of(item.id));
                    waiting.extend(writer.item(&item).into_iter().skip(had));
                }
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
        let at = format!("{number}:0");
        match event {
            Event::Log(line) => vec![frame("logs", &at, line.trim_end_matches(['\r', '\n']))],
            Event::Output(picture, n) => {
                let text = self.view.picture((&self.made, *n), picture, &self.base, Pictures::Whole);
                vec![frame("output", &at, &text)]
            }
            Event::Completed(prediction) => end(prediction, &at),
            Event::Start | Event::Progress { .. } | Event::Metric { .. } => Vec::new(),
        }
    }

    /// All events of a prediction that has ended.
    fn ended(&self, prediction: &Prediction) -> Vec<Frame> {
        let mut frames = Vec::new();
        let at = |n: usize| format!("{STORED}:{n}");
        let logs = prediction.logs.trim_end_matches(['\r', '\n']);
        if !logs.is_empty() {
            frames.push(frame("logs", &at(0), logs));
        }
        for (n, picture) in (0..).zip(prediction.output.iter().flat_map(Output::pictures)) {
            let text = self.view.picture((&self.made, n), picture, &self.base, Pictures::Whole);
            frames.push(frame("output", &at(frames.len()), &text));
        }
        frames.extend(end(prediction, &at(frames.len())));
        frames
    }
}

/// How a prediction ended. The id is for what comes before the last event.
fn end(prediction: &Prediction, at: &str) -> Vec<Frame> {
    let done = |data: &Value| frame("done", DONE, &data.to_string());
    match prediction.status {
        Status::Failed => {
            let detail = json!({ "detail": prediction.error.as_deref().unwrap_or_default() });
            vec![frame("error", at, &detail.to_string()), done(&json!({ "reason": "error" }))]
        }
        Status::Canceled => vec![done(&json!({ "reason": "canceled" }))],
        _ => vec![done(&json!({}))],
    }
}

fn frame(name: &str, id: &str, data: &str) -> Frame {
    Frame::default().event(name).id(id).data(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_say_what_a_client_has_got() {
        for (id, event, frame) in [("57:0", 57, 0), ("3:1", 3, 1), ("8", 8, 0)] {
            assert_eq!(Got::read(id), Some(Got { event, frame }), "{id}");
        }
        for none in ["", ":", "x:0", "done", "stored:1", "-1:0", "1:"] {
            assert_eq!(Got::read(none), None, "{none}");
        }
        let got = Got { event: 3, frame: 1 };
        assert_eq!([2, 3, 4].map(|event| got.of(event)), [0, 2, 0]);
        let most = Got::read(&format!("{}:{}", u64::MAX, usize::MAX)).unwrap();
        assert_eq!([0, u64::MAX].map(|event| most.of(event)), [0, usize::MAX]);
        for (id, frames) in
            [("stored:0", Some(1)), ("stored:2", Some(3)), ("2:0", None), ("stored", None), ("done", None)]
        {
            assert_eq!(had(id), frames, "{id}");
        }
        assert_eq!(had(&format!("{STORED}:{}", usize::MAX)), Some(usize::MAX));
    }
}
