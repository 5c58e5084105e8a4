//! What is wrong with a database, for `doctor`, without changing it.

use std::sync::mpsc;

use tokio_postgres::{Client, Error};

use super::address::Address;
use super::connect::{connect, within};
use super::rows::query;
use super::schema;
use crate::store::error::StoreError;

/// A database that can be used.
#[derive(Debug)]
pub struct Inspected {
    /// What it is.
    pub found: String,
    /// Why it may lose what it has confirmed.
    pub warnings: Vec<String>,
}

/// Looks at a database.
///
/// # Errors
/// If it cannot be used.
pub fn inspect(url: &str) -> Result<Inspected, StoreError> {
    let address = Address::parse(url)?;
    let (to, found) = mpsc::channel();
    let look = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Engine(error.to_string()));
        _ = to.send(runtime.and_then(|runtime| runtime.block_on(look(&address))));
    };
    // The caller may be a task, which must not wait for another.
    let thread = std::thread::Builder::new().name("inspection".to_owned()).spawn(look);
    thread.map_err(|error| StoreError::Engine(error.to_string()))?;
    found.recv().unwrap_or(Err(StoreError::Closed))
}

async fn look(address: &Address) -> Result<Inspected, StoreError> {
    let client = connect(address).await?;
    let looking = async {
        schema::server(&client).await?;
        let found = schema::describe(&client).await?;
        Ok((found, warnings(&client).await?))
    };
    let (found, warnings) = within(address, &client, looking).await?;
    Ok(Inspected { found: format!("database {}: {found}", address.shown()), warnings })
}

/// Why a server may lose what it has confirmed.
pub(super) async fn warnings(client: &Client) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    for (setting, means) in [
        ("fsync", "a power cut may damage the database"),
        ("full_page_writes", "a power cut may damage the database"),
        ("synchronous_commit", "a crash of the server forgets what was accepted last"),
    ] {
        let sql = format!("SELECT current_setting('{setting}')");
        let rows = query(client, &sql, &[]).await?;
        if rows.first().is_some_and(|row| row.get::<_, &str>(0) == "off") {
            warnings.push(format!("`{setting}` is `off`: {means}"));
        }
    }
    let sql = "SELECT current_setting('client_min_messages')";
    let rows = query(client, sql, &[]).await?;
    if rows.first().is_some_and(|row| ["error", "fatal", "panic"].contains(&row.get::<_, &str>(0))) {
        warnings.push(
            "`client_min_messages` hides warnings: a commit that has not reached the standby cannot be told".to_owned(),
        );
    }
    // A role without rights sees the standbys, and not how they are.
    let standbys = "SELECT count(*) FILTER (WHERE sync_state = 'async'),
        count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) FROM pg_stat_replication";
    let rows = query(client, standbys, &[]).await?;
    let behind = rows.first().is_some_and(|row| row.get::<_, i64>(0) > 0 && row.get::<_, i64>(1) == 0);
    if behind {
        warnings.push(
            "all standbys are asynchronous: a failover forgets what was accepted last; set `synchronous_standby_names`"
                .to_owned(),
        );
    }
    Ok(warnings)
}
