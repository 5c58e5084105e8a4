//! One connection to the database, made again when it is lost. Calls on it are pipelined.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::{AsyncMessage, Client, Connection, Error, Socket};

use super::address::{Address, CONNECT};
use super::explain::Failure;
use super::tls::Secured;
use crate::store::error::StoreError;

/// How often a call is made again at once when others are in its way.
pub(super) const MAX_TRIES: u32 = 5;
/// How long a call may take before the connection counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// The wait after the first failure to connect; doubles up to `MAX_WAIT`, give or take half of it.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait. With its half more it is well below every lease: after an outage, who is back first does not take
/// for dead who still waits.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// A connection.
pub(super) struct Link {
    address: Arc<Address>,
    state: tokio::sync::Mutex<State>,
    /// Why the last call had no answer.
    trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct State {
    client: Option<Arc<Client>>,
    failures: u32,
    /// When to try again, and why the last try failed.
    failed: Option<(Instant, StoreError)>,
}

impl Link {
    pub(super) fn new(address: Arc<Address>) -> Self {
        Self { address, state: tokio::sync::Mutex::default(), trouble: Mutex::default() }
    }

    /// Why the last call had no answer, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// The connection, made if there is none.
    ///
    /// # Errors
    /// If there is no way to the database, at once if that was so a moment ago.
    pub(super) async fn client(&self) -> Result<Arc<Client>, StoreError> {
        let mut state = self.state.lock().await;
        if let Some(client) = state.client.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        state.client = None;
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

    /// Makes a call once. Its connection is given up when it has no answer.
    pub(super) async fn once<T, F>(&self, work: impl FnOnce(Arc<Client>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.once_with(0, work).await
    }

    /// The same for a call that sends this many bytes.
    pub(super) async fn once_with<T, F>(&self, bytes: usize, work: impl FnOnce(Arc<Client>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let client = self.client().await.map_err(Failure::before)?;
        match timeout(PATIENCE + time_to_send(bytes), work(Arc::clone(&client))).await {
            Ok(Ok(done)) => {
                self.note(None);
                Ok(done)
            }
            Ok(Err(error)) => {
                let failure = Failure::of(error);
                if failure.unknown {
                    self.lose(&client, &failure.error).await;
                }
                Err(failure)
            }
            Err(_) => {
                let error = StoreError::Engine("the database does not answer".to_owned());
                self.lose(&client, &error).await;
                Err(Failure { error, unknown: true, again: false })
            }
        }
    }

    /// A call had no answer.
    async fn lose(&self, client: &Arc<Client>, error: &StoreError) {
        self.state.lock().await.client.take_if(|current| Arc::ptr_eq(current, client));
        self.note(Some(error.to_string()));
    }

    /// Makes a call, again if others were in its way.
    pub(super) async fn call<T, F>(&self, work: impl Fn(Arc<Client>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        for _ in 1..MAX_TRIES {
            match self.once(&work).await {
                Err(failure) if failure.again => pause().await,
                answer => return answer,
            }
        }
        self.once(&work).await
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
    tokio::time::sleep(random_part(FIRST_WAIT)).await;
}

/// Connects to the first host of the database that lets it. The connection lives until its client is dropped.
pub(super) async fn connect(address: &Address) -> Result<Client, StoreError> {
    let hosts = address.hosts();
    let patience = if hosts.len() > 1 { CONNECT } else { PATIENCE };
    let mut failed: Option<Error> = None;
    for host in hosts {
        match timeout(patience, host.connect(address.tls.clone())).await {
            Ok(Ok((client, connection))) => {
                tokio::spawn(Driver(connection));
                return Ok(client);
            }
            // What a server says tells more than that another one is away.
            Ok(Err(error)) if failed.as_ref().is_none_or(|failed| failed.as_db_error().is_none()) => {
                failed = Some(error);
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    let silent = || StoreError::Engine("it does not answer".to_owned());
    Err(match failed.map_or_else(silent, StoreError::from) {
        StoreError::Engine(text) => StoreError::Engine(format!("database {}: {text}", address.shown())),
        other => other,
    })
}

/// Moves the bytes of a connection.
struct Driver(Connection<Socket, Secured<Socket>>);

impl Future for Driver {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.0.poll_message(cx) {
                Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                    // The commit that this is about is on one server only, whatever the answer behind it says.
                    if notice.message().contains("canceling wait for synchronous replication") {
                        tracing::error!("a commit has not reached the standby; its answer is dropped");
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
