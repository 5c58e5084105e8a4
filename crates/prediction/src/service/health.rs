//! How the service is, as `/health-check` tells it.

use serde::Serialize;

use super::Service;
use super::crew::{Duty, Post};
use crate::time::Time;

/// Most text that is kept of the loading of workers.
const MOST_LOGS: usize = 64 << 10;

/// The states of Cog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// The workers load.
    Starting,
    /// A prediction would begin at once.
    Ready,
    /// All workers are taken.
    Busy,
    /// No worker could load.
    SetupFailed,
    /// No worker is left, and none will come back by itself.
    Defunct,
    /// Workers were lost and are being started again.
    Unhealthy,
}

/// How the service is.
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

/// How the loading of the workers went.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Time>,
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    logs: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self { started_at: Time::now(), completed_at: None, status: "starting", logs: String::new() }
    }
}

impl Setup {
    /// Adds a line of a worker that loads.
    pub(super) fn log(&mut self, line: &str) {
        if self.logs.len() + line.len() < MOST_LOGS {
            self.logs.push_str(line);
            self.logs.push('\n');
        }
    }

    /// A worker has loaded.
    pub(super) fn succeed(&mut self) {
        self.completed_at.get_or_insert_with(Time::now);
        self.status = "succeeded";
    }

    /// A worker could not load. If another did, that counts.
    pub(super) fn fail(&mut self, error: &str) {
        self.log(error);
        if self.status != "succeeded" {
            self.completed_at.get_or_insert_with(Time::now);
            self.status = "failed";
        }
    }
}

/// How many are where.
#[derive(Clone, Copy, Debug)]
pub struct Census {
    /// Predictions that wait for a worker.
    pub waiting: usize,
    /// Predictions that workers hold.
    pub running: usize,
    /// Workers by what can be expected of them.
    pub workers: [(&'static str, usize); 5],
}

impl Service {
    /// How many are where.
    pub fn census(&self) -> Census {
        let table = self.shared.table();
        let mut workers = [("loading", 0), ("ready", 0), ("lost", 0), ("failed", 0), ("dead", 0)];
        for post in &table.crew {
            let place = match post.duty {
                Duty::Loading => 0,
                Duty::Ready => 1,
                Duty::Lost(_) => 2,
                Duty::LoadFailed(_) => 3,
                Duty::Dead(_) => 4,
            };
            workers[place].1 += 1;
        }
        let running = table.crew.iter().map(|post| post.running().count()).sum();
        Census { waiting: table.queue.len(), running, workers }
    }

    /// How the service is.
    pub fn health(&self) -> Health {
        let table = self.shared.table();
        let any = |wanted: fn(&Post) -> bool| table.crew.iter().any(wanted);
        let status = if any(Post::is_ready) {
            if table.crew.iter().map(Post::free).sum::<usize>() > 0 { State::Ready } else { State::Busy }
        } else if any(|post| post.duty == Duty::Loading) {
            State::Starting
        } else if any(|post| matches!(post.duty, Duty::Lost(_))) {
            State::Unhealthy
        } else if any(|post| matches!(post.duty, Duty::Dead(_))) {
            State::Defunct
        } else {
            State::SetupFailed
        };
        let why = table.crew.iter().find_map(|post| match &post.duty {
            Duty::Lost(why) => Some(format!("the worker was lost and is being started again: {why}")),
            Duty::Dead(why) => Some(format!("the worker was lost for good: {why}; restart the server")),
            _ => None,
        });
        let user_healthcheck_error = why.filter(|_| matches!(status, State::Unhealthy | State::Defunct));
        Health { status, setup: table.setup.clone(), user_healthcheck_error }
    }
}
