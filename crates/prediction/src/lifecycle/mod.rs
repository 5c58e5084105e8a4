//! The life of a prediction in this process: the phases it goes through, and what leads from one to the next.
//!
//! ```text
//!           Watched (another node runs it)
//!              ^
//!              v
//! Storing --> Queued --claim--> Claimed --begin--> Running --computed--> Delivering
//!    |         | ^                 |                  |                      |
//!    |         | +---- release ----+------------------+                      |
//!    |         |                   +------------------+-------- finish ------+--> Finishing
//!    |         +--> Ended (by the store), or Elsewhere                               |
//!    +--> Refused, or Ended (known)                          Ended, or Elsewhere <---+
//! ```
//!
//! Fields are private and change by these methods only; each reports whether the change was allowed, and leaves
//! everything as it was if not. What always holds:
//! - a prediction ends at most once, and its end is published only from [`Phase::Finishing`], in which it is being
//!   stored, or from [`Phase::Queued`] and [`Phase::Watched`], in which nobody of this process can end it;
//! - what finishes has a claim, without which the store would not accept its end;
//! - nothing leads away from [`Phase::Ended`], [`Phase::Elsewhere`] and [`Phase::Refused`];
//! - the first reason to stop stays.

use std::sync::Arc;

use protocol::Work;

use crate::store::Claim;
use crate::wire::{Output, Prediction, Status};

/// Where a prediction is.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// It is being stored, and its request is not answered yet.
    Storing,
    /// It waits in the store.
    Queued,
    /// Another node of the store runs it.
    Watched,
    /// This process has claimed it, and looks for a worker with room.
    Claimed { claim: Claim },
    /// A worker computes it, under the name of a job.
    Running { claim: Claim, worker: usize, job: String },
    /// The worker is done; the picture is being encoded and sent.
    Delivering { claim: Claim },
    /// Its end is decided and being stored. `started` tells whether a worker ever began.
    Finishing { started: bool },
    /// It has ended, and that is stored.
    Ended(Arc<Prediction>),
    /// It continues without this process: the next one finds it in the store, or another node of a fleet has it.
    Elsewhere,
    /// It could not be stored, and never existed.
    Refused(String),
}

impl Phase {
    /// The status that the wire shows.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Watched | Self::Running { .. } | Self::Delivering { .. } | Self::Finishing { started: true } => {
                Status::Processing
            }
            Self::Ended(prediction) => prediction.status,
            Self::Storing
            | Self::Queued
            | Self::Claimed { .. }
            | Self::Finishing { started: false }
            | Self::Elsewhere
            | Self::Refused(_) => Status::Starting,
        }
    }

    /// Whether nothing happens to it any more in this process.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Elsewhere | Self::Refused(_))
    }

    /// Whether it is left to the store: it waits there, or another node has it.
    pub(crate) fn is_left(&self) -> bool {
        matches!(self, Self::Queued | Self::Watched)
    }

    /// The claim under which it may be ended or given back.
    pub(crate) fn claim(&self) -> Option<Claim> {
        match self {
            Self::Claimed { claim } | Self::Running { claim, .. } | Self::Delivering { claim } => Some(*claim),
            _ => None,
        }
    }
}

/// Why a prediction is to stop.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// Somebody asked for it, its client left, or the `Cancel-After` of its request has passed.
    Canceled,
    /// It ran for longer than the seconds that any prediction may.
    TooLong(f64),
}

/// How a prediction ends.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// With its pictures: their data URIs or URLs, and what was computed for them.
    Succeeded { output: Output, work: Work },
    /// With an error.
    Failed(String),
    /// Without either.
    Canceled,
}

/// The phase of a prediction and everything that decides about the next one.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: Phase,
    /// How many times it was claimed, as the store counts it.
    attempts: u32,
    /// Why it is to stop, once it is. What waits is stopped by the store.
    stop: Option<Stop>,
    /// How many clients follow its events.
    followers: usize,
    /// Whether it stops when the last of them leaves.
    cancel_when_unfollowed: bool,
}

impl Lifecycle {
    /// That of a new prediction.
    pub(crate) fn storing() -> Self {
        Self { phase: Phase::Storing, attempts: 0, stop: None, followers: 0, cancel_when_unfollowed: false }
    }

    /// That of a prediction which the store holds unfinished.
    pub(crate) fn queued(attempts: u32) -> Self {
        Self { phase: Phase::Queued, attempts, ..Self::storing() }
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// It is in the store, and waits.
    pub(crate) fn stored(&mut self) -> bool {
        let allowed = matches!(self.phase, Phase::Storing);
        self.go(allowed, Phase::Queued)
    }

    /// It is not in the store, and will not be.
    pub(crate) fn refuse(&mut self, why: String) -> bool {
        let allowed = matches!(self.phase, Phase::Storing);
        self.go(allowed, Phase::Refused(why))
    }

    /// The store knows its id, as one that has ended before.
    pub(crate) fn known(&mut self, ended: Arc<Prediction>) -> bool {
        let allowed = matches!(self.phase, Phase::Storing) && ended.status.is_terminal();
        self.go(allowed, Phase::Ended(ended))
    }

    /// This process has claimed it. That may be known before the answer that it is stored.
    pub(crate) fn claim(&mut self, claim: Claim, attempts: u32) -> bool {
        let allowed = matches!(self.phase, Phase::Storing | Phase::Queued | Phase::Watched);
        if allowed {
            self.attempts = attempts;
        }
        self.go(allowed, Phase::Claimed { claim })
    }

    /// A worker gets it. Not if it is to stop.
    pub(crate) fn begin(&mut self, worker: usize, job: String) -> bool {
        let Phase::Claimed { claim } = self.phase else { return false };
        self.go(self.stop.is_none(), Phase::Running { claim, worker, job })
    }

    /// It is given back to the queue, and this is the claim. Not if it is to stop.
    pub(crate) fn release(&mut self) -> Option<Claim> {
        let (Phase::Claimed { claim } | Phase::Running { claim, .. }) = self.phase else { return None };
        self.go(self.stop.is_none(), Phase::Queued).then_some(claim)
    }

    /// Its worker is done with it.
    pub(crate) fn computed(&mut self) -> bool {
        let Phase::Running { claim, .. } = self.phase else { return false };
        self.go(true, Phase::Delivering { claim })
    }

    /// Another node runs it; whether this is another attempt than before.
    pub(crate) fn watch(&mut self, attempts: u32) -> Option<bool> {
        let is_new = !matches!(self.phase, Phase::Watched) || self.attempts != attempts;
        if !self.go(self.phase.is_left(), Phase::Watched) {
            return None;
        }
        self.attempts = attempts;
        Some(is_new)
    }

    /// The node that ran it does not any more.
    pub(crate) fn wait_again(&mut self) -> bool {
        let allowed = matches!(self.phase, Phase::Watched);
        self.go(allowed, Phase::Queued)
    }

    /// Its claim does not hold any more: it is the store's again. Whether it was canceled, if so.
    pub(crate) fn lose(&mut self) -> Option<bool> {
        let allowed = self.phase.claim().is_some() || matches!(self.phase, Phase::Finishing { .. });
        self.go(allowed, Phase::Queued).then_some(matches!(self.stop, Some(Stop::Canceled)))
    }

    /// It continues without this process.
    pub(crate) fn leave(&mut self) -> bool {
        let allowed = self.phase.is_left() || matches!(self.phase, Phase::Finishing { .. });
        self.go(allowed, Phase::Elsewhere)
    }

    /// Asks it to stop. The first reason stays. `stored` says that the store has the wish: then it may still wait here,
    /// because the answer to its claim is under way; otherwise it must have been claimed.
    pub(crate) fn request_stop(&mut self, stop: Stop, stored: bool) -> bool {
        let allowed = self.phase.claim().is_some() || (stored && self.phase.is_left());
        if allowed {
            self.stop.get_or_insert(stop);
        }
        allowed
    }

    /// Decides its end, which is to be stored under the claim: the one proposed, unless it was asked to stop before.
    pub(crate) fn finish(&mut self, proposed: End) -> Option<(Claim, End)> {
        let claim = self.phase.claim()?;
        let started = !matches!(self.phase, Phase::Claimed { .. });
        self.go(true, Phase::Finishing { started });
        let end = match (&self.stop, proposed) {
            (Some(Stop::Canceled), _) => End::Canceled,
            (Some(Stop::TooLong(most)), End::Canceled) => {
                End::Failed(format!("it took longer than the {most} seconds that a prediction may take"))
            }
            (_, end) => end,
        };
        Some((claim, end))
    }

    /// Its end is stored, and this is it.
    pub(crate) fn publish(&mut self, ended: Arc<Prediction>) -> bool {
        let allowed =
            (self.phase.is_left() || matches!(self.phase, Phase::Finishing { .. })) && ended.status.is_terminal();
        self.go(allowed, Phase::Ended(ended))
    }

    /// One more follows its events; `cancel_when_unfollowed` ties its life to those who do.
    pub(crate) fn follow(&mut self, cancel_when_unfollowed: bool) {
        self.followers += 1;
        self.cancel_when_unfollowed |= cancel_when_unfollowed;
    }

    /// One less follows its events; whether it is to stop for that.
    pub(crate) fn unfollow(&mut self) -> bool {
        self.followers = self.followers.saturating_sub(1);
        self.cancel_when_unfollowed && self.followers == 0
    }

    fn go(&mut self, allowed: bool, to: Phase) -> bool {
        if allowed {
            self.phase = to;
        }
        allowed
    }
}

#[cfg(test)]
mod tests;
