//! What is being drawn for whom, so that callers learn how far it is, and stop it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prediction::preview::Preview;

use super::request::Route;
use crate::http::auth::Caller;

/// All that is being drawn, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(Arc<Mutex<Vec<Arc<Drawn>>>>);

/// The pictures of a request.
#[derive(Debug)]
pub(super) struct Drawn {
    caller: Caller,
    /// The prediction.
    pub(super) id: String,
    pub(super) route: Route,
    /// How many pictures it has.
    pub(super) count: u32,
    /// Its newest preview, once somebody asked for one.
    watched: Mutex<Option<Watched>>,
}

/// What is seen of a prediction since somebody asked for its preview.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) newest: Option<Arc<Preview>>,
}

impl Runs {
    fn table(&self) -> MutexGuard<'_, Vec<Arc<Drawn>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a prediction until the run is dropped.
    pub(super) fn begin(&self, caller: Caller, id: &str, route: Route, count: u32) -> Run {
        let drawn = Arc::new(Drawn { caller, id: id.to_owned(), route, count, watched: Mutex::default() });
        self.table().push(Arc::clone(&drawn));
        Run { runs: self.clone(), drawn }
    }

    /// What a caller asked for last.
    pub(super) fn newest(&self, caller: &Caller) -> Option<Arc<Drawn>> {
        self.table().iter().rev().find(|drawn| drawn.caller == *caller).cloned()
    }
}

impl Drawn {
    pub(super) fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
pub(super) struct Run {
    runs: Runs,
    drawn: Arc<Drawn>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.runs.table().retain(|drawn| !Arc::ptr_eq(drawn, &self.drawn));
    }
}
