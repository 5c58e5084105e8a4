//! What is wrong with a database, for `doctor`, without changing it.

use std::sync::{Arc, mpsc};

use tokio_postgres::{Client, Error};

use super::address::Address;
use super::agree;
use super::connect::{connect, within};
use super::link::{Kind, Link};
use super::orphans;
use super::place::Place;
use super::rows::query;
use super::schema;
use crate::bucket::Access;
use crate::store::error::StoreError;

/// A database, or its bucket, that can be used.
#[derive(Debug)]
pub struct Inspected {
    /// What it is.
    pub found: String,
    /// Why it may lose what it has confirmed, or keep what it need not.
    pub warnings: Vec<String>,
}

/// Looks at a database.
///
/// # Errors
/// If it cannot be used.
pub fn inspect(url: &str) -> Result<Inspected, StoreError> {
    let address = Address::parse(url)?;
    apart(async move { look(&address).await })
}

/// Tries out the bucket in which the servers of a database have their pictures, or the one that they are to have; says
/// what it is, and nothing if there is none.
///
/// # Errors
/// If it cannot be used, or they have another one.
pub fn inspect_pictures(url: &str, asked: Option<&str>, access: Access) -> Result<Option<Inspected>, StoreError> {
    let (address, asked) = (Address::parse(url)?, asked.map(str::to_owned));
    apart(async move { look_at_pictures(address, asked.as_deref(), &access).await })
}

/// Waits for some work on a thread of its own: the caller may be a task, which must not wait for another.
fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let (to, found) = mpsc::channel();
    let look = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Engine(error.to_string()));
        _ = to.send(runtime.and_then(|runtime| runtime.block_on(work)));
    };
    let thread = std::thread::Builder::new().name("inspection".to_owned()).spawn(look);
    thread.map_err(|error| StoreError::Engine(error.to_string()))?;
    found.recv().unwrap_or(Err(StoreError::Closed))
}

async fn look_at_pictures(
    address: Address,
    asked: Option<&str>,
    access: &Access,
) -> Result<Option<Inspected>, StoreError> {
    let link = Link::new(Arc::new(address), Kind::Looks);
    let has_settings = schema::has_settings(&*link.client().await?).await?;
    let known = if has_settings { link.read(agree::known).await? } else { None };
    let (place, rival) = match (known, asked) {
        (None, None) => return Ok(None),
        (Some(known), asked) => {
            let place = agree::tried(&known, asked, access).await?;
            let rival = orphans::rival(&link, &place).await?;
            (place, rival)
        }
        (None, Some(url)) => {
            let place = Place::new(url, "trial", access)?;
            place.probe().await?;
            (place, None)
        }
    };
    let found = format!("`{}` can be written to, read and listed", place.url());
    Ok(Some(Inspected { found, warnings: rival.into_iter().collect() }))
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
    // Its arguments differ by version.
    let refused = "SELECT p.oid::regprocedure::text, quote_ident(current_user)::text FROM pg_proc p
        WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace
            AND p.proargtypes[2] = 'text'::regtype AND NOT has_function_privilege(p.oid, 'EXECUTE')";
    for row in query(client, refused, &[]).await? {
        let (function, role) = (row.get::<_, &str>(0), row.get::<_, &str>(1));
        warnings.push(format!(
            "the role may not probe whether commits are confirmed, so what an earlier call has stored may be taken for \
            safe before it has reached the standby; `GRANT EXECUTE ON FUNCTION {function} TO {role}`"
        ));
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
