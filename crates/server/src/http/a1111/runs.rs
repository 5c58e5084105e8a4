//! What is being drawn for whom, so that callers learn how far it is, and stop it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use prediction::preview::Preview;

use super::request::Route;
use crate::http::auth::Caller;

/// All that is being drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// What was asked for here, the newest last.
    here: Vec<Arc<Drawn>>,
    /// What was asked for on other servers, as long as it is watched here.
    elsewhere: Vec<Weak<Drawn>>,
}

/// The pictures of a request.
#[derive(Debug)]
pub(super) struct Drawn {
    caller: Caller,
    /// The prediction.
    pub(super) id: String,
    pub(super) route: Route,
    /// How many pictures it has.
    pub(super) count: u32,
    /// Whether another server was asked for it.
    pub(super) is_elsewhere: bool,
    /// Its newest preview, once somebody asked for one.
    watched: Mutex<Option<Watched>>,
}

/// What is seen of a prediction since somebody asked for its preview.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) newest: Option<Arc<Preview>>,
}

/// Who asks a route, as predictions remember it, for other servers.
pub(super) fn asker(Caller(caller): &Caller, route: Route) -> String {
    // No name of a caller contains a line break.
    format!("{}\n{caller}", route.job())
}

impl Runs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a prediction until the run is dropped.
    pub(super) fn begin(&self, caller: Caller, id: &str, route: Route, count: u32) -> Run {
        let drawn = Arc::new(Drawn::new(caller, id, route, count, false));
        self.table().here.push(Arc::clone(&drawn));
        Run { runs: self.clone(), drawn }
    }

    /// What a caller asked for last, of this server.
    pub(super) fn newest(&self, caller: &Caller) -> Option<Arc<Drawn>> {
        self.table().here.iter().rev().find(|drawn| drawn.caller == *caller).cloned()
    }

    /// What a caller asked another server for.
    pub(super) fn elsewhere(&self, caller: &Caller, id: &str, route: Route, count: u32) -> Arc<Drawn> {
        let mut table = self.table();
        table.elsewhere.retain(|drawn| drawn.strong_count() > 0);
        let known = table.elsewhere.iter().filter_map(Weak::upgrade).find(|drawn| drawn.id == id);
        known.unwrap_or_else(|| {
            let drawn = Arc::new(Drawn::new(caller.clone(), id, route, count, true));
            table.elsewhere.push(Arc::downgrade(&drawn));
            drawn
        })
    }
}

impl Drawn {
    fn new(caller: Caller, id: &str, route: Route, count: u32, is_elsewhere: bool) -> Self {
        Self { caller, id: id.to_owned(), route, count, is_elsewhere, watched: Mutex::default() }
    }

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
        self.runs.table().here.retain(|drawn| !Arc::ptr_eq(drawn, &self.drawn));
    }
}
