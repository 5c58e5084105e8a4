//! The way out: a picture is encoded and goes where pictures go, the end is stored, and then published.

use std::sync::Arc;

use protocol::Work;
use tracing::Instrument as _;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::lifecycle::End;
use crate::output::{self, Metadata};
use crate::upload::{Target, Way};
use crate::webhook::subscription::EventKind;

/// A picture that is stored beside the end of its prediction.
pub(super) struct Picture {
    png: Arc<[u8]>,
    /// The name under which it is served, if it is.
    file: Option<String>,
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
            let metadata = shared.options.metadata.then(|| Metadata::new(active.input(), model.as_ref()));
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
                self.finish(active, End::Succeeded { output, work }, Some(Picture { png, file: None }));
            }
            Way::File => match output::name() {
                Ok(name) => {
                    let output = active.accepted().prediction.urls.file(&name).into();
                    self.finish(active, End::Succeeded { output, work }, Some(Picture { png, file: Some(name) }));
                }
                Err(error) => self.finish(active, End::Failed(error.to_string()), Some(Picture { png, file: None })),
            },
            Way::Send(target) => self.send(Arc::clone(active), png, work, target),
        }
    }

    /// Sends a picture away; one that could not be sent is kept all the same.
    fn send(self: &Arc<Self>, active: Arc<ActivePrediction>, png: Arc<[u8]>, work: Work, target: Target) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let sent = active.stopping.run_until_cancelled(shared.uploader.send(&target, active.id(), &png)).await;
            let picture = Picture { png, file: None };
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

    /// Stores the end of a prediction, then publishes it. What is ending already stays as it is.
    pub(super) fn finish(self: &Arc<Self>, active: &Arc<ActivePrediction>, end: End, picture: Option<Picture>) {
        let Some(prediction) = active.finish(end) else { return };
        let (shared, active) = (Arc::clone(self), Arc::clone(active));
        let span = active.span.clone();
        let storing = async move {
            let (png, file) = picture.map_or((None, None), |Picture { png, file }| (Some(png), file));
            let pending = active.webhook().is_some_and(|webhook| webhook.wants(EventKind::Completed));
            if let Err(error) = shared.store.finish_unclaimed(active.record_of(&prediction, file), png, pending).await {
                tracing::error!(%error, "the end of a prediction could not be stored");
            }
            shared.forget(&active);
            let status = prediction.status.name();
            tracing::info!(status, "prediction ended");
            metrics::counter!("syncdiffusion_predictions_total", "status" => status).increment(1);
            if let (Some(_), Some(seconds)) = (prediction.started_at, prediction.metrics.predict_time) {
                metrics::histogram!("syncdiffusion_predict_seconds", "status" => status).record(seconds);
            }
            active.publish_end(prediction);
        };
        self.tasks.spawn(storing.instrument(span));
    }

    /// Removes a prediction from the table; another of the same id stays.
    pub(super) fn forget(&self, active: &Arc<ActivePrediction>) {
        let mut table = self.table();
        if table.active.get(active.id()).is_some_and(|known| Arc::ptr_eq(known, active)) {
            table.active.remove(active.id());
        }
    }
}
