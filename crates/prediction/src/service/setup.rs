//! How the loading of the workers went, as Cog's health check shows it.

use serde::Serialize;

use crate::time::Time;

/// Longest text that is kept of the loading of workers.
const MAX_LOGS: usize = 64 << 10;

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
        if self.logs.len() + line.len() < MAX_LOGS {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_that_loads_is_a_success() {
        let mut setup = Setup::default();
        setup.fail("no device");
        assert_eq!((setup.status, setup.logs.as_str()), ("failed", "no device\n"));
        setup.succeed();
        let completed = setup.completed_at;
        setup.fail("no device");
        assert_eq!((setup.status, setup.completed_at), ("succeeded", completed));
        setup.log(&"x".repeat(MAX_LOGS));
        assert_eq!(setup.logs, "no device\nno device\n");
    }
}
