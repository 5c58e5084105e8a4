//! The state of the service, as the health check and the metrics show it.

use serde::Serialize;

use super::setup::Setup;
use super::shared::Shared;
use super::workers::{WorkerSlot, WorkerState};

/// The states of Cog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// The workers load.
    Starting,
    /// A prediction would begin at once.
    Ready,
    /// All workers are busy, or none is there and predictions wait for one that is yet to come.
    Busy,
    /// No worker could load.
    SetupFailed,
    /// No worker is left, and none will be started.
    Defunct,
    /// Workers were lost and are being started again, or the store cannot be written.
    Unhealthy,
}

impl State {
    /// Whether predictions are accepted.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::Busy)
    }
}

/// What the health check shows.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// In one word.
    pub status: State,
    /// How the loading went.
    pub setup: Setup,
    /// Why it is unhealthy or defunct.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_healthcheck_error: Option<String>,
}

/// Numbers of predictions and of workers, by state.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Predictions that wait for a worker.
    pub waiting: usize,
    /// Those of them that wait for a version of the model that no node draws, by version.
    pub unserved: Vec<(String, u64)>,
    /// Predictions that workers hold.
    pub running: usize,
    /// Whether predictions are accepted.
    pub ready: bool,
    /// Workers by state.
    pub workers: [(&'static str, usize); 5],
}

impl Shared {
    pub(super) fn counts(&self) -> Counts {
        let ready = self.health().status.is_ready();
        let table = self.table();
        let mut workers = [("loading", 0), ("ready", 0), ("lost", 0), ("failed", 0), ("dead", 0)];
        for slot in table.workers.slots() {
            let state = match slot.state {
                WorkerState::Loading => 0,
                WorkerState::Ready => 1,
                WorkerState::Lost(_) => 2,
                WorkerState::LoadFailed(_) => 3,
                WorkerState::Dead(_) => 4,
            };
            workers[state].1 += 1;
        }
        let waiting = usize::try_from(self.store.board().waiting).unwrap_or(usize::MAX);
        let unserved = table.unserved.iter().map(|(version, board)| (version.clone(), board.waiting)).collect();
        Counts { waiting, unserved, running: table.workers.running().count(), ready, workers }
    }

    pub(super) fn health(&self) -> Health {
        let trouble = self.trouble();
        let table = self.table();
        let slots = table.workers.slots();
        let any = |wanted: fn(&WorkerSlot) -> bool| slots.iter().any(wanted);
        // A node without workers is as ready as the others are.
        let is_ready = any(WorkerSlot::is_ready) || (slots.is_empty() && table.others_ready() > 0);
        let status = if (is_ready || slots.is_empty()) && trouble.is_some() {
            State::Unhealthy
        } else if is_ready {
            // The store knows what is accepted or claimed and has not reached its worker yet.
            if self.store.admits(&table.room(0, None)) { State::Ready } else { State::Busy }
        } else if slots.is_empty() && table.takes_work() {
            State::Busy
        } else if slots.is_empty() || any(|slot| slot.state == WorkerState::Loading) {
            State::Starting
        } else if any(|slot| matches!(slot.state, WorkerState::Lost(_))) {
            State::Unhealthy
        } else if any(|slot| matches!(slot.state, WorkerState::Dead(_))) {
            State::Defunct
        } else {
            State::SetupFailed
        };
        let why = slots.iter().find_map(|slot| match &slot.state {
            WorkerState::Lost(why) => Some(format!("the worker was lost and is being started again: {why}")),
            WorkerState::Dead(why) => {
                Some(format!("the worker was lost and is not started again: {why}; restart the server"))
            }
            _ => None,
        });
        let user_healthcheck_error = why.or(trouble).filter(|_| matches!(status, State::Unhealthy | State::Defunct));
        Health { status, setup: table.setup.clone(), user_healthcheck_error }
    }
}
