//! One connection to the database, made again when it is lost. Calls on it are pipelined.
//!
//! A call that has no answer in time is given up. What becomes of its connection depends on what the link is for: where
//! nothing is written, it is replaced. Where something is, the call may be a commit that waits for a standby, behind
//! which every further try would wait, too, each on another connection that the server keeps. So the connection stays,
//! nothing more is sent, and callers get an error at once until the database has answered. That may be on another
//! connection, which is tried now and then ([`super::probe`]): the late one may lead nowhere any more.

use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Error};

use super::address::Address;
use super::connect::{break_off, connect};
use super::explain::Failure;
use super::probe;
use crate::mutex::lock;
use crate::store::error::StoreError;

/// How often a call is made again at once when others are in its way.
pub(super) const MAX_TRIES: u32 = 5;
/// How long a call may take before it is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may take that reads bytes, while the database answers others.
const MAX_PATIENCE: Duration = Duration::from_mins(5);
/// How many calls that read bytes are made at the same time; more wait for their turn.
const MAX_READERS: usize = 4;
/// The wait after the first failure to connect; doubles up to `MAX_WAIT`, give or take half of it.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait. With its half more it is well below every lease: after an outage, who is back first does not take
/// for dead who still waits.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// How long trouble lasts before it is looked for its end: most often the next call finds that it is over.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// How long a probe waits on the connection that is late until one is sent on another, and until the next one is, give
/// or take half of it. Tests wait for it.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });
/// Why nothing is written.
const UNCONFIRMED: &str = "the database does not confirm what is written; see in `pg_stat_activity` whether it waits \
    for a standby (`SyncRep`) or for a lock";

/// What a link is for.
pub(super) enum Kind {
    /// Writes in their order.
    Writes,
    /// Files of clients, which are written one after the other.
    Uploads,
    /// Beats and small reads.
    Looks,
    /// Reads of many bytes, each of which may take as long as its line needs while these looks are answered.
    Bytes(Arc<Link>),
}

/// A connection.
pub(super) struct Link {
    address: Arc<Address>,
    kind: Kind,
    /// For tasks that must not keep it.
    me: Weak<Self>,
    turns: Semaphore,
    state: tokio::sync::Mutex<State>,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct State {
    client: Option<Arc<Client>>,
    /// Whether a call on it was given up, and the connection was not.
    is_late: bool,
    failures: u32,
    /// When to try again, and why the last try failed.
    failed: Option<(Instant, StoreError)>,
}

#[derive(Default)]
struct Trouble {
    /// Why the last call had no answer.
    why: Option<String>,
    /// Whether a task looks for the end of it.
    is_watched: bool,
}

impl Link {
    pub(super) fn new(address: Arc<Address>, kind: Kind) -> Arc<Self> {
        let turns = match kind {
            Kind::Writes | Kind::Looks => Semaphore::MAX_PERMITS,
            Kind::Uploads => 1,
            Kind::Bytes(_) => MAX_READERS,
        };
        Arc::new_cyclic(|me| Self {
            address,
            kind,
            me: Weak::clone(me),
            turns: Semaphore::new(turns),
            state: tokio::sync::Mutex::default(),
            trouble: Mutex::default(),
        })
    }

    /// Why the last call had no answer, if so. Where something is written, this is over by itself when the database
    /// confirms it again, whether or not there is anything to write.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).why.clone()
    }

    fn note(&self, why: Option<String>) {
        let mut trouble = lock(&self.trouble);
        let begins = why.is_some() && self.writes() && !trouble.is_watched;
        trouble.why = why;
        if begins {
            trouble.is_watched = true;
            tokio::spawn(watch(Weak::clone(&self.me)));
        }
    }

    /// Ends the watch if there is no trouble any more, or if it is over now.
    fn ends_watch(&self, is_over: bool) -> bool {
        let mut trouble = lock(&self.trouble);
        let ends = is_over || trouble.why.is_none();
        if ends {
            *trouble = Trouble::default();
        }
        ends
    }

    fn writes(&self) -> bool {
        matches!(self.kind, Kind::Writes | Kind::Uploads)
    }

    /// The connection, made if there is none.
    ///
    /// # Errors
    /// If there is no way to the database, at once if that was so a moment ago, or if it is late.
    pub(super) async fn client(&self) -> Result<Arc<Client>, StoreError> {
        let mut state = self.state.lock().await;
        let client = self.reach(&mut state).await?;
        if state.is_late { Err(StoreError::Engine(UNCONFIRMED.to_owned())) } else { Ok(client) }
    }

    /// The same, also if it is late.
    async fn reach(&self, state: &mut State) -> Result<Arc<Client>, StoreError> {
        if let Some(client) = state.client.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        (state.client, state.is_late) = (None, false);
        if let Some((_, error)) = state.failed.as_ref().filter(|(until, _)| Instant::now() < *until) {
            return Err(error.clone());
        }
        match connect(&self.address).await {
            Ok(client) => {
                let client = Arc::new(client);
                *state = State { client: Some(Arc::clone(&client)), ..State::default() };
                Ok(client)
            }
            Err(error) => {
                let wait = (FIRST_WAIT * 2_u32.saturating_pow(state.failures)).min(MAX_WAIT);
                state.failures += 1;
                state.failed = Some((Instant::now() + wait / 2 + random_part(wait), error.clone()));
                self.note(Some(error.to_string()));
                Err(error)
            }
        }
    }

    /// Makes a call once.
    pub(super) async fn once<T, F>(&self, work: impl FnOnce(Arc<Client>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.once_within(PATIENCE, work).await
    }

    /// The same for a call that sends this many bytes.
    pub(super) async fn once_with<T, F>(&self, bytes: usize, work: impl FnOnce(Arc<Client>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.once_within(PATIENCE + time_to_send(bytes), work).await
    }

    /// The same for a call that is given up after a time of its own.
    pub(super) async fn once_within<T, F>(
        &self,
        patience: Duration,
        work: impl FnOnce(Arc<Client>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let _turn = self.turns.acquire().await.map_err(|_| Failure::before(StoreError::Closed))?;
        let client = self.client().await.map_err(Failure::before)?;
        match self.answered(patience, work(Arc::clone(&client))).await {
            Some(Ok(done)) => {
                self.note(None);
                Ok(done)
            }
            Some(Err(error)) => {
                let failure = Failure::of(error);
                if failure.unknown {
                    self.lose(&client, &failure.error).await;
                }
                Err(failure)
            }
            None => Err(Failure { error: self.give_up(client).await, unknown: true, again: false }),
        }
    }

    /// The answer to a call, unless it takes too long.
    async fn answered<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, began) = (pin!(work), Instant::now());
        loop {
            let answer = timeout(patience, work.as_mut()).await.ok();
            let waits = match &self.kind {
                Kind::Bytes(looks) => looks.trouble().is_none() && began.elapsed() < MAX_PATIENCE,
                Kind::Writes | Kind::Uploads | Kind::Looks => false,
            };
            if answer.is_some() || !waits {
                return answer;
            }
        }
    }

    /// A call took too long.
    async fn give_up(&self, client: Arc<Client>) -> StoreError {
        if self.writes() {
            let error = StoreError::Engine(UNCONFIRMED.to_owned());
            {
                let mut state = self.state.lock().await;
                if state.client.as_ref().is_some_and(|current| Arc::ptr_eq(current, &client)) {
                    state.is_late = true;
                }
            }
            self.note(Some(error.to_string()));
            return error;
        }
        let error = StoreError::Engine("the database does not answer".to_owned());
        self.lose(&client, &error).await;
        if Arc::strong_count(&client) == 1 {
            // Nobody else waits on it: it need not stand in a queue of the server for nothing.
            let (address, token) = (Arc::clone(&self.address), client.cancel_token());
            tokio::spawn(async move { break_off(&address, &token).await });
        }
        error
    }

    /// A call had no answer, and its connection is of no use any more.
    async fn lose(&self, client: &Arc<Client>, error: &StoreError) {
        self.state.lock().await.client.take_if(|current| Arc::ptr_eq(current, client));
        self.note(Some(error.to_string()));
    }

    /// Makes sure that all that this server has committed is confirmed. What an earlier call has done without an answer
    /// can be seen, and might be on this server alone.
    pub(super) async fn confirm(&self) -> Result<(), Failure> {
        self.call(async |client: Arc<Client>| probe::probe(&client).await).await
    }

    /// Makes a call, again if others were in its way.
    pub(super) async fn call<T, F>(&self, work: impl Fn(Arc<Client>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        repeated(|| self.once(&work)).await
    }

    /// Makes a call that changes nothing, a second time on a new connection if the first had no answer.
    pub(super) async fn read<T, F>(&self, work: impl Fn(Arc<Client>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match self.call(&work).await {
            Err(Failure { unknown: true, .. }) => Ok(self.call(&work).await?),
            answer => Ok(answer?),
        }
    }
}

/// Waits for the end of the trouble of a link that writes: until a commit is confirmed, on the connection that is late
/// or on another one, by which it is replaced then.
async fn watch(link: Weak<Link>) {
    let mut wait = LOOK_AFTER;
    loop {
        sleep(wait / 2 + random_part(wait)).await;
        wait = (2 * wait).min(MAX_WAIT);
        let Some(reached) = link.upgrade() else { return };
        let address = Arc::clone(&reached.address);
        let client = {
            let mut state = reached.state.lock().await;
            if !state.is_late && reached.ends_watch(false) {
                return;
            }
            reached.reach(&mut state).await
        };
        drop(reached);
        let Ok(client) = client else { continue };
        let confirmed = confirmed(&address, &client).await;
        let Some(reached) = link.upgrade() else { return };
        let mut state = reached.state.lock().await;
        let is_current = state.client.as_ref().is_some_and(|current| Arc::ptr_eq(current, &client));
        if let Some(confirmed) = confirmed.filter(|_| is_current) {
            if confirmed == Confirmed::Elsewhere {
                tracing::warn!("a connection to the database that does not answer is replaced");
                state.client = None;
            }
            state.is_late = false;
            reached.ends_watch(true);
            return;
        }
    }
}

/// Where a commit was confirmed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Confirmed {
    Here,
    Elsewhere,
}

/// Waits until a commit is confirmed on a connection, or on another one to the database: this one may lead to a server,
/// or through a pooler, that is dead and does not say so. `None` if this connection is lost.
///
/// On this one there is never more than one such commit, and one on another is broken off when it takes too long.
async fn confirmed(address: &Arc<Address>, client: &Client) -> Option<Confirmed> {
    let mut here = pin!(probe::probe(client));
    loop {
        tokio::select! {
            probed = here.as_mut() => return probed.is_ok().then_some(Confirmed::Here),
            () = sleep(ELSEWHERE_AFTER / 2 + random_part(ELSEWHERE_AFTER)) => {}
        }
        // A task: it breaks off what it has begun, whatever comes first here.
        let address = Arc::clone(address);
        let elsewhere = tokio::spawn(async move { probe::is_confirmed(&address, PATIENCE).await });
        tokio::select! {
            probed = here.as_mut() => return probed.is_ok().then_some(Confirmed::Here),
            is_confirmed = elsewhere => {
                if is_confirmed.unwrap_or(false) {
                    return Some(Confirmed::Elsewhere);
                }
            }
        }
    }
}

/// Does something, again if others were in its way.
pub(super) async fn repeated<T, F>(work: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    for _ in 1..MAX_TRIES {
        match work().await {
            Err(failure) if failure.again => pause().await,
            answer => return answer,
        }
    }
    work().await
}

/// How long it takes to send bytes where the line is slow: 1 MiB a second.
pub(super) fn time_to_send(bytes: usize) -> Duration {
    Duration::from_secs((bytes >> 20) as u64)
}

/// A random part of a time, so that nodes do not do the same at the same moment.
fn random_part(of: Duration) -> Duration {
    of * u32::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255
}

/// Waits until what was in the way may be over.
pub(super) async fn pause() {
    sleep(random_part(FIRST_WAIT)).await;
}
