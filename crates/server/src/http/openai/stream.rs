//! The answer as events: partial images, which are the previews of the prediction, and each picture when it is done.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::Response;
use axum::response::sse::Event as Frame;
use futures_util::stream;
use prediction::feed::{Event, Item};
use prediction::service::{Follower, News, Submitted};
use prediction::{Prediction, Status};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::{base64, now};
use super::errors::Fault;
use super::request::{Asked, Shape};
use super::route::Route;
use super::usage::usage;
use crate::http::common::{self, Ended};
use crate::http::error::Error;
use crate::http::events::answer;
use crate::http::state::App;

/// Events that wait for the client to read them.
const WAITING: usize = 4;

/// Answers with events. When the client leaves, what has not ended is stopped, unless it has a key.
pub(super) async fn events(
    app: App,
    submitted: Submitted,
    route: Route,
    Asked { input, partial_images, shape, .. }: Asked,
) -> Result<Response, Fault> {
    let follower = match submitted {
        Submitted::New(ticket) if !ticket.is_detached() => Ok(ticket.follow()),
        // Nothing of it is missed, and it goes on when its follower leaves.
        submitted => {
            let follower = app.service.follow(common::id(&submitted), 0).await.map_err(Error::from)?;
            follower.ok_or(submitted)
        }
    };
    let source = match follower {
        Ok(follower) => Source::Follower(follower),
        Err(Submitted::Ended(known)) if known.status != Status::Succeeded => return Err(Fault::failed(&known)),
        Err(known) => Source::Known(known),
    };
    let (to, events) = mpsc::channel(WAITING);
    let steps = input.num_inference_steps;
    let sender = Sender { app, route, shape, steps, partial_images, to };
    tokio::spawn(async move {
        let sent = tokio::select! {
            biased;
            () = sender.to.closed() => return,
            sent = sender.send(source) => sent,
        };
        if let Err(fault) = sent {
            let _ = sender.to.send(frame("error", &fault.body())).await;
        }
    });
    let frames = stream::unfold(events, |mut events| async {
        let frame = events.recv().await?;
        Some((Ok::<_, Infallible>(frame), events))
    });
    Ok(answer(frames))
}

/// Where the pictures come from.
enum Source {
    Follower(Follower),
    /// A prediction that has ended, or is drawn by another process.
    Known(Submitted),
}

struct Sender {
    app: App,
    route: Route,
    shape: Shape,
    /// Steps of a picture, as far as nothing else was said of them.
    steps: u32,
    partial_images: u32,
    to: mpsc::Sender<Frame>,
}

impl Sender {
    /// Sends the partial images, and then every picture.
    async fn send(&self, source: Source) -> Result<(), Fault> {
        let prediction = match source {
            Source::Follower(follower) => {
                let mut follower = if self.partial_images > 0 { follower.watching() } else { follower };
                self.follow(&mut follower).await?
            }
            Source::Known(submitted) => match common::ended(&self.app, submitted).await? {
                Ended::Done(prediction) | Ended::Failed(prediction) => prediction,
                Ended::Left => return Err(Fault::closing()),
            },
        };
        if prediction.status != Status::Succeeded {
            return Err(Fault::failed(&prediction));
        }
        for n in 0..prediction.input.num_outputs {
            let picture = base64(&self.app, &prediction, n).await?;
            let mut event = self.event("completed", &picture, self.shape.format);
            event["usage"] = usage(&prediction.input, self.shape.size, 1);
            event["seed"] = prediction.input.of_picture(n).seed.into();
            event["prediction_id"] = prediction.id.as_str().into();
            if let Some(asker) = &self.shape.asker {
                event["safety_identifier"] = asker.as_str().into();
            }
            self.say(&event).await;
        }
        Ok(())
    }

    /// Sends the partial images of a prediction until it ends.
    async fn follow(&self, follower: &mut Follower) -> Result<Arc<Prediction>, Fault> {
        let (mut sent, mut of) = (0, self.steps);
        loop {
            match self.app.over.run_until_cancelled(follower.next()).await.flatten() {
                Some(News::Preview(preview)) if sent < self.partial_images && preview.step >= self.due(sent, of) => {
                    // The preview of the stream of the prediction, the same bytes.
                    let picture = preview.image.split_once(";base64,").map_or("", |(_, data)| data);
                    let mut event = self.event("partial_image", picture, "png");
                    event["partial_image_index"] = sent.into();
                    self.say(&event).await;
                    sent += 1;
                }
                // With a picture that is drawn again these are the steps that are drawn, and previews count them.
                Some(News::Item(Item { event: Event::Progress { steps, .. }, .. })) => of = steps,
                Some(News::Item(Item { event: Event::Completed(prediction), .. })) => return Ok(prediction),
                Some(_) => {}
                None => return Err(Fault::closing()),
            }
        }
    }

    /// The step from which on the partial image of an index is sent: they are spread evenly over `steps`.
    fn due(&self, index: u32, steps: u32) -> u32 {
        ((index + 1).saturating_mul(steps)).div_ceil(self.partial_images + 1)
    }

    /// What both kinds of events have.
    fn event(&self, kind: &str, picture: &str, format: &str) -> Value {
        json!({
            "b64_json": picture,
            "background": "opaque",
            "created_at": now(),
            "output_format": format,
            "quality": self.shape.quality,
            "size": self.shape.size(),
            "type": format!("{}.{kind}", self.route.event()),
        })
    }

    /// Sends an event, unless the client has left.
    async fn say(&self, event: &Value) {
        let name = event["type"].as_str().unwrap_or_default();
        let _ = self.to.send(frame(name, event)).await;
    }
}

fn frame(name: &str, data: &Value) -> Frame {
    Frame::default().event(name).data(data.to_string())
}
