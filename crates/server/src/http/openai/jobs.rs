//! What is being drawn, so that a client that tries again finds it: the official clients send a request up to three
//! times, when it takes longer than they wait or the connection is lost.
//!
//! What always holds: what nobody waits for is stopped after a while, and not before.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use prediction::Prediction;
use prediction::service::Ticket;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::http::common::{Ended, end};
use crate::http::head::Head;

/// How long work continues that nobody waits for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an end is remembered.
const MEMORY: Duration = Duration::from_mins(1);

/// What identifies a request: who sends it, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name([u8; 32]);

impl Name {
    pub(super) fn of(head: &Head, path: &str, digest: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        for part in [head.caller.0.as_bytes(), path.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(digest);
        Self(hash.finalize().into())
    }
}

/// Whether a request may have been sent before.
pub(super) fn repeats(headers: &HeaderMap) -> bool {
    let count = headers.get("x-stainless-retry-count").and_then(|count| count.to_str().ok()?.parse::<u32>().ok());
    count.is_some_and(|count| count > 0)
}

/// All jobs.
#[derive(Clone, Debug, Default)]
pub(super) struct Jobs(Arc<Mutex<HashMap<Name, Arc<Job>>>>);

/// How a job ended.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// The prediction of this id has the pictures.
    Done(String),
    /// This one has none.
    Failed(Arc<Prediction>),
    /// The server stops.
    Left,
}

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Done(prediction) => Self::Done(prediction.id.clone()),
            Ended::Failed(prediction) => Self::Failed(prediction),
            Ended::Left => Self::Left,
        }
    }
}

struct Job {
    ended: watch::Receiver<Option<Outcome>>,
    /// How many wait for it, and how often somebody stopped waiting.
    waiting: Mutex<(usize, u64)>,
    abandoned: CancellationToken,
}

impl fmt::Debug for Job {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Job")
    }
}

impl Job {
    fn waiting(&self) -> MutexGuard<'_, (usize, u64)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for it, unless it was given up.
    fn join(self: Arc<Self>) -> Option<Waiter> {
        let mut waiting = self.waiting();
        if self.abandoned.is_cancelled() {
            return None;
        }
        waiting.0 += 1;
        drop(waiting);
        Some(Waiter(self))
    }
}

impl Jobs {
    fn table(&self) -> MutexGuard<'_, HashMap<Name, Arc<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the job of a name, if there is one.
    pub(super) fn join(&self, name: Name) -> Option<Waiter> {
        let job = self.table().get(&name).cloned();
        job?.join()
    }

    /// Looks after a prediction from now on.
    pub(super) fn begin(&self, name: Name, mut ticket: Ticket) -> Waiter {
        let (to, ended) = watch::channel(None);
        let (waiting, abandoned) = (Mutex::new((1, 0)), CancellationToken::new());
        let job = Arc::new(Job { ended, waiting, abandoned });
        self.table().insert(name, Arc::clone(&job));
        let (jobs, watched) = (self.clone(), Arc::clone(&job));
        tokio::spawn(async move {
            let ended = watched.abandoned.run_until_cancelled(end(&mut ticket)).await;
            drop(ticket);
            if let Some(ended) = ended {
                to.send_replace(Some(ended.into()));
                sleep(MEMORY).await;
            }
            let mut table = jobs.table();
            if table.get(&name).is_some_and(|known| Arc::ptr_eq(known, &watched)) {
                table.remove(&name);
            }
        });
        Waiter(job)
    }
}

/// One who waits for a job.
pub(super) struct Waiter(Arc<Job>);

impl Waiter {
    /// Waits for the end.
    pub(super) async fn outcome(&self) -> Outcome {
        let mut ended = self.0.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Outcome::Left),
            Err(_) => Outcome::Left,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.0 -= 1;
        waiting.1 += 1;
        let (left, leaving) = *waiting;
        drop(waiting);
        if left > 0 || self.0.ended.borrow().is_some() {
            return;
        }
        let job = Arc::clone(&self.0);
        tokio::spawn(async move {
            sleep(PATIENCE).await;
            let waiting = job.waiting();
            // Unless somebody came, and perhaps left again, meanwhile.
            if *waiting == (0, leaving) {
                job.abandoned.cancel();
            }
        });
    }
}
