//! What a node knows of pictures in a bucket: where they go, and what is on its way there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::place::Place;
use super::rows::Object;
use crate::bucket::Access;
use crate::mutex::lock;
use crate::store::work::Claim;

/// For how long a picture that was drawn is put again and again.
const MAX_PUTTING: Duration = Duration::from_mins(15);
/// For how long what was put is good for an end that is not stored yet; much less than the age at which a sweep removes
/// what no row names.
pub(super) const MAX_KEPT: Duration = Duration::from_hours(1);

/// What was put for an end.
pub(super) struct Kept {
    /// When the first of it was put, or before.
    pub(super) since: Instant,
    pub(super) objects: Vec<Object>,
}

/// What a node knows of pictures in a bucket.
pub(super) struct Objects {
    access: Mutex<Access>,
    place: Mutex<Option<Arc<Place>>>,
    /// Whether new pictures go there.
    is_for_new: AtomicBool,
    /// What was put for ends that are not stored yet, so that it is not put each time.
    put: Mutex<HashMap<Claim, Kept>>,
    /// Bytes of pictures that are on their way.
    under_way: AtomicUsize,
    /// For how long a picture that was drawn is put again and again.
    pub(super) max_putting: Mutex<Duration>,
    /// Notified when there may be something to remove.
    pub(super) nudge: Arc<Notify>,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            access: Mutex::default(),
            place: Mutex::default(),
            is_for_new: AtomicBool::default(),
            put: Mutex::default(),
            under_way: AtomicUsize::default(),
            max_putting: Mutex::new(MAX_PUTTING),
            nudge: Arc::default(),
        }
    }
}

impl Objects {
    /// Remembers how a bucket is reached.
    pub(super) fn set_access(&self, access: Access) {
        *lock(&self.access) = access;
    }

    pub(super) fn access(&self) -> Access {
        lock(&self.access).clone()
    }

    /// Has new pictures go into a bucket, or only those that are there be read.
    pub(super) fn set_place(&self, place: Arc<Place>, is_for_new: bool) {
        *lock(&self.place) = Some(place);
        self.is_for_new.store(is_for_new, Ordering::Relaxed);
    }

    /// The bucket, if this node knows of one.
    pub(super) fn place(&self) -> Option<Arc<Place>> {
        lock(&self.place).clone()
    }

    /// The bucket into which new pictures go, if there is one.
    pub(super) fn for_new(&self) -> Option<Arc<Place>> {
        self.place().filter(|_| self.is_for_new.load(Ordering::Relaxed))
    }

    /// What an earlier try to end a prediction has put, unless it is so old that a sweep may soon remove it.
    pub(super) fn take(&self, claim: &Claim, now: Instant) -> Kept {
        let kept = lock(&self.put).remove(claim).filter(|kept| now.duration_since(kept.since) < MAX_KEPT);
        kept.unwrap_or_else(|| Kept { since: now, objects: Vec::new() })
    }

    /// Remembers what was put for an end that could not be stored.
    pub(super) fn keep(&self, claim: Claim, kept: Kept) {
        lock(&self.put).insert(claim, kept);
    }

    /// How many bytes of pictures are on their way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Counts bytes as long as the answer is held.
    pub(super) fn count(&self, bytes: usize) -> Counted<'_> {
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
        Counted { objects: self, bytes }
    }
}

/// Bytes that are on their way.
pub(super) struct Counted<'a> {
    objects: &'a Objects,
    bytes: usize,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.objects.under_way.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
