//! A write that changes and locks nothing, to see whether commits are confirmed.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::address::Address;
use super::connect::{break_off, connect_to_probe};
use super::rows::query;

const PROBE: &str = "SELECT pg_logical_emit_message(true, 'syncdiffusion', '')";
/// Whether a write of this role has taken longer than a number of seconds: it waits for a lock, or its commit for a
/// standby or the disk.
const IS_STUCK: &str = "SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() AND state = 'active'
        AND (wait_event_type = 'Lock' OR backend_xid IS NOT NULL)
        AND query_start < clock_timestamp() - make_interval(secs => ";

/// Commits something, after all that this server has committed before.
///
/// # Errors
/// If that is not confirmed. A role that may not do it is answered, at least.
pub(super) async fn probe(client: &Client) -> Result<(), Error> {
    client.batch_execute(PROBE).await.or_else(|error| if is_refused(&error) { Ok(()) } else { Err(error) })
}

/// Whether the server has answered, and does not let this role probe.
fn is_refused(error: &Error) -> bool {
    let refusals = [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::UNDEFINED_FUNCTION, SqlState::FEATURE_NOT_SUPPORTED];
    error.code().is_some_and(|code| refusals.contains(code))
}

/// Whether a commit on a new connection is confirmed in time, and no write has been waiting for longer: that may be the
/// one whose answer is late, and the next would wait behind it, too. Nothing of it remains: to break off a probe loses
/// nothing.
pub(super) async fn is_confirmed(address: &Address, patience: Duration) -> bool {
    let Ok(client) = connect_to_probe(address).await else { return false };
    let token = client.cancel_token();
    let looking = async {
        probe(&client).await?;
        let sql = format!("{IS_STUCK}{}))", patience.as_secs());
        Ok::<_, Error>(query(&client, &sql, &[]).await?.first().is_some_and(|row| !row.get::<_, bool>(0)))
    };
    if let Ok(looked) = timeout(patience, looking).await {
        looked.unwrap_or(false)
    } else {
        break_off(address, &token).await;
        false
    }
}
