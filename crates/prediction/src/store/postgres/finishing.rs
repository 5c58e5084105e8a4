//! The end of a claimed prediction with its pictures. Where pictures lie in a bucket they are put there first, under
//! names that nobody else has; if the end is refused then, they are removed.

use std::sync::Arc;
use std::time::Instant;

use super::lane::{Commit, Lane, Taken, Tried};
use super::objects::Put;
use super::place::Place;
use super::rows::{self, Contents};
use super::shared::Shared;
use super::writes::{self, Finish};
use crate::mutex::lock;
use crate::store::api::Answer;
use crate::store::ends;
use crate::store::error::StoreError;
use crate::store::record::{Picture, Record};
use crate::store::work::{Claim, Outcome};
use crate::wire::Status;

/// An end as it is sent.
///
/// # Errors
/// If its record cannot be written.
pub(super) fn end(claim: &Claim, mut record: Record, pictures: Contents) -> Result<Finish, StoreError> {
    record.seq = claim.seq;
    let canceled = ends::canceled_instead(record.clone());
    let (text, canceled_text) = (rows::text(&record)?, rows::text(&canceled)?);
    Ok(Finish { claim: *claim, record, canceled, text, canceled_text, pictures })
}

/// Writes an end.
pub(super) fn write(shared: &Arc<Shared>, lane: &Lane, end: Finish) -> Answer<'static, Outcome> {
    let (size, end, done) = (end.pictures.size(), Arc::new(end), Arc::clone(shared));
    let sent = Arc::clone(&end);
    lane.write(
        (Commit::Durable, Taken::Always),
        size,
        move |client| writes::finish(client, Arc::clone(&sent)),
        move |Tried { outcome, in_doubt }| {
            if in_doubt {
                lock(&done.unsure).insert(end.claim);
            }
            let canceled = outcome?;
            done.forget(end.claim);
            Ok(end.outcome(canceled))
        },
    )
}

/// Whether the end of a claim may have been stored without an answer.
pub(super) fn is_unsure(shared: &Shared, claim: Claim) -> bool {
    lock(&shared.unsure).contains(&claim)
}

/// The end that was stored without an answer, if so.
async fn before(shared: &Shared, claim: Claim) -> Result<Option<Outcome>, StoreError> {
    let Some(row) = shared.looks.read(|client| writes::ended(client, claim)).await? else { return Ok(None) };
    shared.truth.confirm().await?;
    let record = rows::record(&row)?;
    lock(&shared.unsure).remove(&claim);
    shared.forget(claim);
    Ok(Some(Outcome::Ended(Box::new(record))))
}

/// What came of it: an earlier try may have been stored although its answer was lost.
pub(super) async fn settle(shared: &Shared, claim: Claim, outcome: Outcome) -> Result<Outcome, StoreError> {
    if !is_unsure(shared, claim) {
        return Ok(outcome);
    }
    let before = if outcome == Outcome::Fenced { before(shared, claim).await? } else { None };
    lock(&shared.unsure).remove(&claim);
    Ok(before.unwrap_or(outcome))
}

/// Writes an end that may be stored already: its pictures may be on their way for as long as it takes to send them once
/// more.
pub(super) async fn again(shared: &Arc<Shared>, lane: &Lane, end: Finish) -> Result<Outcome, StoreError> {
    let claim = end.claim;
    match before(shared, claim).await? {
        Some(outcome) => Ok(outcome),
        None => settle(shared, claim, write(shared, lane, end).await?).await,
    }
}

/// Writes an end whose pictures go into a bucket. If they cannot, for as long as that is tried, the prediction fails.
pub(super) async fn finish_outside(
    shared: &Arc<Shared>,
    lane: &Lane,
    place: &Arc<Place>,
    (claim, record): (Claim, Record),
    pictures: Vec<Picture>,
) -> Result<Outcome, StoreError> {
    let _under_way = shared.objects.count(pictures.iter().map(|picture| picture.bytes.len()).sum());
    let mut kept = shared.objects.take(&claim, Instant::now());
    let put = shared.put_drawn(place, claim, &pictures, &mut kept.objects).await;
    drop(pictures);
    let (record, contents) = match put {
        Put::Done => (record, Contents::There(kept.objects.clone())),
        // It ends as canceled, or is refused.
        Put::Late => (record, Contents::Here(Vec::new())),
        Put::Failed(why) => (ends::unstored(record, why), Contents::Here(Vec::new())),
    };
    let (status, are_there) = (record.prediction.status, matches!(contents, Contents::There(_)));
    let written = async {
        let end = end(&claim, record, contents)?;
        if is_unsure(shared, claim) {
            return again(shared, lane, end).await;
        }
        settle(shared, claim, write(shared, lane, end).await?).await
    };
    let outcome = match written.await {
        Ok(outcome) => outcome,
        Err(error) => {
            // It is tried again, and may be stored.
            shared.objects.keep(claim, kept);
            return Err(error);
        }
    };
    let is_stored = |ended: &Record| ended.prediction.status == status && status != Status::Canceled;
    if !(are_there && matches!(&outcome, Outcome::Ended(ended) if is_stored(ended))) {
        shared.discard(place, kept.objects);
    }
    Ok(outcome)
}
