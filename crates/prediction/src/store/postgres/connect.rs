//! How a connection is made: to the first of the hosts that lets it, at the first of its addresses that answers.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Connection, Error, Socket};

use super::address::{Address, CONNECT};
use super::tls::Secured;
use crate::store::error::StoreError;

/// How long a start may wait for the database, once that lets it in.
const MAX_START: Duration = Duration::from_secs(30);

/// Connects to the database. The connection lives until its client is dropped.
///
/// # Errors
/// If none of the hosts lets it. What one says tells more than that another one is away.
pub(super) async fn connect(address: &Address) -> Result<Client, StoreError> {
    let (client, connection) = reach(address).await?;
    tokio::spawn(Driver { connection, only_probes: false });
    Ok(client)
}

/// The same for probes only: one that has not reached the standby has failed, and nothing is lost with it.
///
/// # Errors
/// As for [`connect`].
pub(super) async fn connect_to_probe(address: &Address) -> Result<Client, StoreError> {
    let (client, connection) = reach(address).await?;
    tokio::spawn(Driver { connection, only_probes: true });
    Ok(client)
}

type Wire = Connection<Socket, Secured<Socket>>;

async fn reach(address: &Address) -> Result<(Client, Wire), StoreError> {
    let mut failed: Option<Error> = None;
    let hosts = address.hosts();
    let several = hosts.len() > 1;
    for host in hosts {
        let places = address.places(host).await;
        // Where there is no other to try it may take longer to let this one in.
        let limit = if several || places.len() > 1 { address.patience() } else { 2 * address.patience() };
        for place in places {
            match timeout(limit, place.config.connect(address.tls.clone())).await {
                Ok(Ok(made)) => {
                    address.remember(&place);
                    return Ok(made);
                }
                Ok(Err(error)) if failed.as_ref().is_none_or(|failed| failed.as_db_error().is_none()) => {
                    failed = Some(error);
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
    let silent = || StoreError::Engine("it does not answer".to_owned());
    Err(named(address, failed.map_or_else(silent, StoreError::from)))
}

/// An error with the name of the database.
pub(super) fn named(address: &Address, error: StoreError) -> StoreError {
    match error {
        StoreError::Engine(text) => StoreError::Engine(format!("database {}: {text}", address.shown())),
        other => other,
    }
}

/// Does what a start has to do, for as long as that may take.
///
/// # Errors
/// Those of the work, or that it takes too long.
pub(super) async fn within<T>(
    address: &Address,
    client: &Client,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let done = if let Ok(done) = timeout(MAX_START, work).await {
        done
    } else {
        break_off(address, &client.cancel_token()).await;
        Err(StoreError::Engine(format!(
            "it lets this server in and then does not answer for {} s; see in `pg_stat_activity` whether it waits for \
            a standby (`SyncRep`) or for a lock",
            MAX_START.as_secs()
        )))
    };
    done.map_err(|error| named(address, error))
}

/// Asks the server to end what it does on a connection, of which nobody waits for the answer. Not for commits: one that
/// waits for a standby would be done without it.
pub(super) async fn break_off(address: &Address, token: &CancelToken) {
    if let Ok(Err(error)) = timeout(CONNECT, token.cancel_query(address.tls.clone())).await {
        tracing::debug!(%error, "a call that was given up could not be broken off");
    }
}

/// Moves the bytes of a connection.
struct Driver {
    connection: Wire,
    only_probes: bool,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.connection.poll_message(cx) {
                Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                    // The commit that this is about is on one server only, whatever the answer behind it says. The
                    // words are in the language of the server; where it comes from is not.
                    if notice.routine() == Some("SyncRepWaitForLSN") {
                        if !self.only_probes {
                            tracing::error!("a commit has not reached the standby; its answer is dropped");
                        }
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
