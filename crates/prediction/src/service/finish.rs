//! The way out: a picture is encoded and goes where pictures go, the end is stored, and then published.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::Work;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::Instrument as _;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::given_pictures::told;
use crate::lifecycle::End;
use crate::output::{self, Metadata};
use crate::store::{Claim, Kind, Outcome, Picture, Record, StoreError, Which};
use crate::upload::{Target, Way};
use crate::wire::{Output, Prediction};

/// The wait after an end could not be stored; doubles up to `MAX_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Pictures to store beside the end of their prediction, under these names, if they are served.
fn stored(pictures: Vec<Arc<[u8]>>, names: Option<Vec<String>>) -> Vec<Picture> {
    let names = names.into_iter().flatten().map(Some).chain(std::iter::repeat(None));
    let one = |((n, bytes), file): ((u32, Arc<[u8]>), Option<String>)| {
        let media = output::format(&bytes).media().to_owned();
        Picture { which: Which { kind: Kind::Output, n }, media, file, bytes }
    };
    (0..).zip(pictures).zip(names).map(one).collect()
}

impl Shared {
    /// Encodes the picture of a number, with its own seed among what is written into it.
    fn encoded(&self, active: &ActivePrediction, n: u32, rgb: &[u8], size: (u32, u32)) -> Result<Arc<[u8]>, String> {
        let model = self.table().model.clone();
        let (rgb, size) = active.wanted().cut(rgb, size);
        let input = told(&active.input().of_picture(n), active.given.hashes());
        let metadata = self.options.metadata.then(|| Metadata::new(&input, model.as_ref()));
        let encoded = output::encode(&rgb, size, &input, metadata.as_ref());
        Ok(encoded.map_err(|error| format!("the picture cannot be encoded: {error}"))?.into())
    }

    /// Encodes what a worker has computed, and ends the prediction with it.
    pub(super) fn encode(self: &Arc<Self>, active: Arc<ActivePrediction>, rgb: Vec<u8>, size: (u32, u32), work: Work) {
        let shared = Arc::clone(self);
        self.tasks.spawn_blocking(move || match shared.encoded(&active, 0, &rgb, size) {
            Ok(picture) => shared.deliver(&active, vec![picture], work),
            Err(error) => shared.finish(&active, End::Failed(error), Vec::new()),
        });
    }

    /// Encodes one of several pictures while the others are drawn. To be waited for before the worker is listened to
    /// again, so that no more of its pictures gather than its pipe and the queue of messages hold.
    pub(super) fn encode_one(
        self: &Arc<Self>,
        (worker, job): (usize, String),
        active: Arc<ActivePrediction>,
        n: u32,
        rgb: Vec<u8>,
        size: (u32, u32),
    ) -> JoinHandle<()> {
        let shared = Arc::clone(self);
        self.tasks.spawn_blocking(move || match shared.encoded(&active, n, &rgb, size) {
            Ok(picture) => active.keep(&job, n, picture),
            Err(error) => shared.break_off(worker, &job, error),
        })
    }

    /// Ends the prediction with all of its pictures, which were kept.
    pub(super) fn deliver_all(self: &Arc<Self>, active: Arc<ActivePrediction>, work: Work) {
        let pictures = active.take_drawn();
        let (drawn, wanted) = (pictures.len(), active.input().num_outputs);
        if drawn != wanted as usize {
            let error = format!("the worker was done after {drawn} of {wanted} pictures");
            return self.finish(&active, End::Failed(error), Vec::new());
        }
        let shared = Arc::clone(self);
        self.tasks.spawn_blocking(move || shared.deliver(&active, pictures, work));
    }

    /// Makes the output of pictures: data URIs, URLs of this server, or the URLs where they were sent to.
    fn deliver(self: &Arc<Self>, active: &Arc<ActivePrediction>, pictures: Vec<Arc<[u8]>>, work: Work) {
        let way = match self.uploader.way(active.output_file_prefix()) {
            Way::DataUri if active.wanted().named => Way::File,
            way => way,
        };
        match way {
            Way::DataUri => {
                let output = Output::of(pictures.iter().map(|picture| output::data_uri(picture)).collect());
                self.finish(active, End::Succeeded { output, work }, stored(pictures, None));
            }
            Way::File => {
                let names = pictures.iter().map(|picture| output::name(output::format(picture)));
                match names.collect::<io::Result<Vec<_>>>() {
                    Ok(names) => {
                        let urls = &active.accepted().prediction.urls;
                        let output = Output::of(names.iter().map(|name| urls.file(name).into()).collect());
                        self.finish(active, End::Succeeded { output, work }, stored(pictures, Some(names)));
                    }
                    Err(error) => self.finish(active, End::Failed(error.to_string()), stored(pictures, None)),
                }
            }
            Way::Send(target) => self.send(Arc::clone(active), pictures, work, target),
        }
    }

    /// Sends pictures away; where one cannot be sent, all are kept all the same.
    fn send(self: &Arc<Self>, active: Arc<ActivePrediction>, pictures: Vec<Arc<[u8]>>, work: Work, target: Target) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let sending = async {
                let mut sent = Vec::new();
                for (n, picture) in (0..).zip(&pictures) {
                    let number = (pictures.len() > 1).then_some(n);
                    sent.push(shared.uploader.send(&target, active.id(), picture, number).await?);
                }
                Ok::<_, String>(Output::of(sent))
            };
            let sent = active.stopping.run_until_cancelled(sending).await;
            match sent {
                Some(Ok(output)) => {
                    shared.finish(&active, End::Succeeded { output, work }, stored(pictures, None));
                }
                Some(Err(why)) => {
                    for (n, _) in (0..).zip(&pictures) {
                        let url = active.accepted().prediction.urls.picture(n);
                        active.log(&format!("the picture is kept: GET {url}"));
                    }
                    shared.finish(&active, End::Failed(why), stored(pictures, None));
                }
                None => shared.finish(&active, End::Canceled, Vec::new()),
            }
        });
    }

    /// Stores the end of a claimed prediction, then publishes it. What is ending already stays as it is.
    pub(super) fn finish(self: &Arc<Self>, active: &Arc<ActivePrediction>, end: End, pictures: Vec<Picture>) {
        let Some((claim, prediction)) = active.finish(end) else { return };
        let (shared, active) = (Arc::clone(self), Arc::clone(active));
        let span = active.span.clone();
        let storing = async move {
            let file = pictures.first().and_then(|picture| picture.file.clone());
            let record = active.record_of(&prediction, file);
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
    pub(super) fn abandon(self: &Arc<Self>, active: &Arc<ActivePrediction>) {
        active.span.in_scope(|| tracing::warn!("a prediction is not this server's any more"));
        let is_shown = {
            let table = self.table();
            let known = table.active.get(active.id()).is_some_and(|known| Arc::ptr_eq(known, active));
            table.fleet && !table.closing && known
        };
        if !is_shown {
            self.forget(active);
            active.leave();
        } else if active.lose() {
            // Whoever waits for it here hears of its end from the store.
            self.give_up(active);
        }
    }

    /// Removes a prediction from the table; another of the same id stays.
    pub(super) fn forget(&self, active: &Arc<ActivePrediction>) {
        let mut table = self.table();
        if table.active.get(active.id()).is_some_and(|known| Arc::ptr_eq(known, active)) {
            table.active.remove(active.id());
        }
    }
}
