//! The way out: a picture is encoded and goes where pictures go, the end is stored, and then published.

use std::sync::Arc;
use std::time::Duration;

use protocol::Work;
use tokio::time::sleep;
use tracing::Instrument as _;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::given_pictures::told;
use crate::lifecycle::End;
use crate::output::{self, Metadata};
use crate::store::{Claim, Outcome, Picture, Record, StoreError, Which};
use crate::upload::{Target, Way};
use crate::wire::Prediction;

/// The wait after an end could not be stored; doubles up to `MAX_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// A PNG to store beside the end of its prediction, and the name under which it is served, if it is.
fn stored(bytes: Arc<[u8]>, file: Option<String>) -> Picture {
    Picture { which: Which::FIRST, media: "image/png".to_owned(), file, bytes }
}

impl Shared {
    /// Encodes what a worker has computed, and ends the prediction with it.
    pub(super) fn encode(
        self: &Arc<Self>,
        active: Arc<ActivePrediction>,
        rgb: Vec<u8>,
        (width, height): (u32, u32),
        work: Work,
    ) {
        let shared = Arc::clone(self);
        let model = self.table().model.clone();
        self.tasks.spawn_blocking(move || {
            let input = told(active.input(), active.given.hashes());
            let metadata = shared.options.metadata.then(|| Metadata::new(&input, model.as_ref()));
            match output::picture(&rgb, width, height, metadata.as_ref()) {
                Ok(png) => shared.deliver(&active, png.into(), work),
                Err(error) => {
                    shared.finish(&active, End::Failed(format!("the picture cannot be encoded: {error}")), None);
                }
            }
        });
    }

    /// Makes the output of a picture: a data URI, a URL of this server, or the URL where it was sent to.
    fn deliver(self: &Arc<Self>, active: &Arc<ActivePrediction>, png: Arc<[u8]>, work: Work) {
        match self.uploader.way(active.output_file_prefix()) {
            Way::DataUri => {
                let output = output::data_uri(&png);
                self.finish(active, End::Succeeded { output, work }, Some(stored(png, None)));
            }
            Way::File => match output::name() {
                Ok(name) => {
                    let output = active.accepted().prediction.urls.file(&name).into();
                    self.finish(active, End::Succeeded { output, work }, Some(stored(png, Some(name))));
                }
                Err(error) => self.finish(active, End::Failed(error.to_string()), Some(stored(png, None))),
            },
            Way::Send(target) => self.send(Arc::clone(active), png, work, target),
        }
    }

    /// Sends a picture away; one that could not be sent is kept all the same.
    fn send(self: &Arc<Self>, active: Arc<ActivePrediction>, png: Arc<[u8]>, work: Work, target: Target) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let sent = active.stopping.run_until_cancelled(shared.uploader.send(&target, active.id(), &png)).await;
            let picture = stored(png, None);
            match sent {
                Some(Ok(output)) => shared.finish(&active, End::Succeeded { output, work }, Some(picture)),
                Some(Err(why)) => {
                    let url = active.accepted().prediction.urls.picture();
                    active.log(&format!("the picture is kept: GET {url}"));
                    shared.finish(&active, End::Failed(why), Some(picture));
                }
                None => shared.finish(&active, End::Canceled, None),
            }
        });
    }

    /// Stores the end of a claimed prediction, then publishes it. What is ending already stays as it is.
    pub(super) fn finish(self: &Arc<Self>, active: &Arc<ActivePrediction>, end: End, picture: Option<Picture>) {
        let Some((claim, prediction)) = active.finish(end) else { return };
        let (shared, active) = (Arc::clone(self), Arc::clone(active));
        let span = active.span.clone();
        let storing = async move {
            let file = picture.as_ref().and_then(|picture| picture.file.clone());
            let record = active.record_of(&prediction, file);
            let pictures = picture.into_iter().collect();
            match shared.store_end(&claim, record, pictures).await {
                // The store knows better: it was asked to stop before this end came.
                Some(Outcome::Ended(record)) if record.prediction.status != prediction.status => {
                    shared.conclude(&active, record.prediction);
                }
                Some(Outcome::Ended(_)) => shared.conclude(&active, prediction),
                Some(Outcome::Waits | Outcome::Fenced) => shared.abandon(&active),
                None => {}
            }
        };
        self.tasks.spawn(storing.instrument(span));
    }

    /// Stores an end, and tries again until that is done; `None` if the store is closed before. Nobody hears of the end
    /// until then.
    async fn store_end(&self, claim: &Claim, record: Record, pictures: Vec<Picture>) -> Option<Outcome> {
        let mut wait = FIRST_WAIT;
        loop {
            let error = match self.store.finish(claim, record.clone(), pictures.clone()).await {
                Ok(outcome) => {
                    if self.table().unstored.remove(&claim.seq).is_some() {
                        tracing::info!("the end of a prediction is stored at last");
                    }
                    return Some(outcome);
                }
                Err(StoreError::Closed) => return None,
                Err(error) => error,
            };
            if self.table().unstored.insert(claim.seq, error.to_string()).is_none() {
                tracing::error!(%error, "the end of a prediction could not be stored; it is not published before it is, and this is tried again");
            }
            sleep(wait).await;
            wait = (2 * wait).min(MAX_WAIT);
        }
    }

    /// Publishes an end that is stored.
    pub(super) fn conclude(&self, active: &Arc<ActivePrediction>, prediction: Prediction) {
        self.forget(active);
        let status = prediction.status.name();
        active.span.in_scope(|| tracing::info!(status, "prediction ended"));
        metrics::counter!("syncdiffusion_predictions_total", "status" => status).increment(1);
        if let (Some(_), Some(seconds)) = (prediction.started_at, prediction.metrics.predict_time) {
            metrics::histogram!("syncdiffusion_predict_seconds", "status" => status).record(seconds);
        }
        active.publish_end(prediction);
    }

    /// The store refuses a claim: somebody else has it, who will report its end.
    pub(super) fn abandon(&self, active: &Arc<ActivePrediction>) {
        active.span.in_scope(|| tracing::warn!("a prediction is not this server's any more"));
        self.forget(active);
        active.leave();
    }

    /// Removes a prediction from the table; another of the same id stays.
    pub(super) fn forget(&self, active: &Arc<ActivePrediction>) {
        let mut table = self.table();
        if table.active.get(active.id()).is_some_and(|known| Arc::ptr_eq(known, active)) {
            table.active.remove(active.id());
        }
    }
}
