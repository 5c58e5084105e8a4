//! Acceptance, with the pictures that were given. Where pictures lie in a bucket they are put there first: a prediction
//! is accepted with all of its pictures, or not at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::lane::{Commit, Lane, Taken, Tried};
use super::looks::By;
use super::place::Place;
use super::rows::Contents;
use super::shared::Shared;
use super::writes::{self, Accept, Asked};
use crate::mutex::lock;
use crate::store::api::Answer;
use crate::store::error::StoreError;
use crate::store::work::{Accepted, OBJECTS_WIRE, Room};

/// Writes an acceptance.
pub(super) fn write(shared: &Arc<Shared>, lane: &Lane, new: Accept, room: Room) -> Answer<'static, Asked> {
    let (id, units, size) = (new.id.clone(), new.units, new.inputs.size());
    let (shared, done, new) = (Arc::clone(shared), Arc::clone(shared), Arc::new(new));
    lane.write(
        (Commit::Durable, Taken::IfRoom),
        size,
        move |client| {
            let room = room.after(shared.handed_out.load(Ordering::Relaxed).saturating_sub(room.claims));
            writes::accept(client, shared.me(), Arc::clone(&new), (room, *lock(&shared.since)))
        },
        move |Tried { outcome, in_doubt }| {
            let asked = outcome.map_err(|failure| {
                if in_doubt {
                    // It may be stored: then it is adopted.
                    lock(&done.lost).push(id);
                }
                failure.error
            })?;
            done.count(&asked, units);
            Ok(asked)
        },
    )
}

/// Writes an acceptance whose pictures go into a bucket.
pub(super) async fn write_outside(
    shared: &Arc<Shared>,
    lane: &Lane,
    place: &Arc<Place>,
    new: Accept,
    room: Room,
) -> Result<Asked, StoreError> {
    let Contents::Here(pictures) = &new.inputs else { return write(shared, lane, new, room).await };
    let objects = shared.put(place, pictures).await?;
    // A program that knows no bucket does not claim it.
    let new = Accept { inputs: Contents::There(objects.clone()), wire: new.wire.max(OBJECTS_WIRE), ..new };
    let asked = write(shared, lane, new, room).await?;
    if asked.new.is_none() {
        shared.discard(place, objects);
    }
    Ok(asked)
}

/// What came of it, in the words of the trait.
pub(super) async fn accepted(shared: &Shared, asked: Asked) -> Result<Accepted, StoreError> {
    Ok(match (asked.new, asked.known) {
        (Some(new), _) => Accepted::New(new as u64),
        (None, None) => Accepted::Full(asked.board.unwrap_or_default()),
        (None, Some(known)) => {
            let gone = || StoreError::Engine("the prediction was removed meanwhile; try again".to_owned());
            Accepted::Known(Box::new(shared.stored(By::Seq(known)).await?.ok_or_else(gone)?))
        }
    })
}
