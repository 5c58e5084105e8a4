//! The tables, and the check that a database is ours.
//!
//! Each version adds a step. Steps run under a lock of the whole database, so that nodes which start at the same time
//! make them once. Nodes of the version before go on with the tables that they know.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::explain::Failure;
use super::link::repeated;
use super::rows::query;
use crate::store::error::StoreError;

/// The tables that each version adds to those of the one before. There are as many as the version that this program
/// makes and knows.
pub(super) const STEPS: &[&str] =
    &[include_str!("schema.sql"), include_str!("objects.sql"), include_str!("holders.sql")];
/// The version that this program makes and knows.
pub(super) const VERSION: u32 = STEPS.len() as u32;
/// The functions of all versions, made again with each step: nodes of the version before call them, too.
pub(super) const FUNCTIONS: &[&str] = &[include_str!("functions.sql"), include_str!("functions_objects.sql")];
/// Gives what a step has made to whom the tables before belong, and to those who may use them.
const RIGHTS: &str = include_str!("rights.sql");
/// Notes for [`RIGHTS`] which tables there are before a step, until the transaction ends.
const TABLES_BEFORE: &str = "SELECT set_config('syncdiffusion.tables_before', string_agg(oid::text, ' '), true)
    FROM pg_class WHERE relnamespace = 'syncdiffusion'::regnamespace AND relkind = 'r'";
/// The oldest server.
const MIN_SERVER: i32 = 150_000;
/// Under which lock steps are made; a number of our own.
pub(super) const LOCK: i64 = 0x7379_6e63_6469_6666;
/// How long a node waits for others that start.
pub(super) const MAX_TURN: &str = "20s";
/// How long a step waits for whoever uses a table. Meanwhile everybody else waits behind it.
const MAX_WAIT: &str = "2s";
/// Tables without a primary key. A publication refuses to change their rows unless each is named by all that it has.
const WITHOUT_KEY: &[&str] = &["board", "usage_of_ends"];

/// Makes or checks the tables.
///
/// # Errors
/// If the server, the database or the role is not fit; nothing is changed then.
pub(super) async fn prepare(client: &Client) -> Result<(), StoreError> {
    bring(client, STEPS, MAX_TURN).await
}

/// Brings the tables to the version after some steps. It waits for its turn for at most `max_turn`, a time as
/// PostgreSQL reads it.
pub(super) async fn bring(client: &Client, steps: &[&str], max_turn: &str) -> Result<(), StoreError> {
    server(client).await?;
    let known = steps.len() as u32;
    if let Some(versions) = version(client).await? {
        check(versions, known)?;
        if versions.0 < known {
            // Each by itself. Some transitions lock the board before predictions and others after them, so a step that
            // locks both would be in the way of one or the other.
            for table in WITHOUT_KEY {
                take_turn(client, max_turn, Work::Identify(table)).await?;
            }
        }
    }
    take_turn(client, max_turn, Work::Make(steps)).await
}

/// What is done in one transaction.
#[derive(Clone, Copy)]
enum Work<'a> {
    /// Has a table name its rows by all that they have, if it does not yet.
    Identify(&'a str),
    /// Makes or checks the tables.
    Make(&'a [&'a str]),
}

/// Does something in its turn, again if others were in its way: nodes lock the tables in orders of their own.
async fn take_turn(client: &Client, max_turn: &str, work: Work<'_>) -> Result<(), StoreError> {
    Ok(repeated(|| turn(client, max_turn, work)).await?)
}

async fn turn(client: &Client, max_turn: &str, work: Work<'_>) -> Result<(), Failure> {
    let done = async {
        lock(client, max_turn).await?;
        match work {
            Work::Identify(table) => identify(client, table).await,
            Work::Make(steps) => make(client, steps).await,
        }
    };
    let done = done.await;
    // After a failure this is a rollback, whatever it is called.
    client.batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    done
}

/// Begins a transaction that no other start is in the middle of.
async fn lock(client: &Client, max_turn: &str) -> Result<(), Failure> {
    let lock = format!(
        "BEGIN; SET LOCAL lock_timeout = '{max_turn}'; SELECT pg_advisory_xact_lock({LOCK});
        SET LOCAL lock_timeout TO DEFAULT"
    );
    client.batch_execute(&lock).await.map_err(|error| match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => Failure::before(StoreError::Engine(format!(
            "another server has been checking or making the tables for {max_turn}; see in `pg_stat_activity` what it \
            waits for"
        ))),
        _ => error.into(),
    })
}

/// Limits how long others wait for a change of tables that they use. They are locked until its commit is done, so that
/// waits for no standby. The next one does, that of the new node, and with it for all that was before.
async fn hurry(client: &Client) -> Result<(), Failure> {
    let hurry = format!("SET LOCAL lock_timeout = '{MAX_WAIT}'; SET LOCAL synchronous_commit = local");
    Ok(client.batch_execute(&hurry).await?)
}

fn identity(table: &str) -> String {
    format!("ALTER TABLE syncdiffusion.{table} REPLICA IDENTITY FULL")
}

async fn identify(client: &Client, table: &str) -> Result<(), Failure> {
    let sql = format!(
        "SELECT relreplident = 'f' FROM pg_class WHERE relnamespace = 'syncdiffusion'::regnamespace
            AND relname = '{table}'"
    );
    if query(client, &sql, &[]).await?.first().is_none_or(|row| row.get(0)) {
        return Ok(());
    }
    hurry(client).await?;
    Ok(client.batch_execute(&identity(table)).await?)
}

pub(super) async fn server(client: &Client) -> Result<(), StoreError> {
    let sql = "SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
        current_setting('server_encoding'), pg_is_in_recovery(), current_setting('default_transaction_isolation')";
    let rows = query(client, sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (number, version, encoding, standby, isolation): (i32, &str, &str, bool, &str) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    let refuse = |why: String| Err(StoreError::Engine(why));
    if number < MIN_SERVER {
        return refuse(format!("the server is PostgreSQL {version}; it must be 15 or newer"));
    }
    if encoding != "UTF8" {
        return refuse(format!("the database is encoded as {encoding}; make it with `createdb --encoding UTF8`"));
    }
    if standby {
        return refuse("the server is a standby; name the primary in the URL".to_owned());
    }
    if isolation != "read committed" {
        return refuse(format!(
            "`default_transaction_isolation` is `{isolation}`; set it to `read committed` for the role"
        ));
    }
    Ok(())
}

async fn make(client: &Client, steps: &[&str]) -> Result<(), Failure> {
    let known = steps.len() as u32;
    let has = match version(client).await? {
        Some(versions) => {
            check(versions, known)?;
            usable(client).await?;
            versions.0
        }
        None if is_used(client).await? => return Err(foreign_tables().into()),
        None => 0,
    };
    if has >= known {
        return Ok(());
    }
    if has > 0 {
        hurry(client).await?;
        client.batch_execute(TABLES_BEFORE).await?;
    }
    for step in steps.iter().skip(has as usize) {
        client.batch_execute(step).await?;
    }
    if has == 0 {
        // Nobody uses them yet.
        for table in WITHOUT_KEY {
            client.batch_execute(&identity(table)).await?;
        }
    }
    for functions in FUNCTIONS {
        client.batch_execute(functions).await?;
    }
    if has > 0 {
        client.batch_execute(RIGHTS).await?;
    }
    let number = format!("UPDATE syncdiffusion.settings SET value = '{known}' WHERE name = 'version'");
    Ok(client.batch_execute(&number).await?)
}

/// What a database is, for messages.
///
/// # Errors
/// If it is not fit.
pub(super) async fn describe(client: &Client) -> Result<String, StoreError> {
    let known = VERSION;
    match version(client).await? {
        Some(versions) => {
            check(versions, known)?;
            let has = versions.0;
            Ok(if has < known {
                format!("it has tables of version {has}, which the first start brings to version {known}")
            } else {
                "it has its tables".to_owned()
            })
        }
        None if is_used(client).await? => Err(foreign_tables()),
        None => Ok("it is empty, and gets its tables with the first start".to_owned()),
    }
}

fn check((version, least): (u32, u32), known: u32) -> Result<(), StoreError> {
    if least > known {
        return Err(StoreError::Engine(format!(
            "the database is of version {version}, which programs older than version {least} cannot use; this program \
            knows version {known}: use a newer one"
        )));
    }
    if version == 0 {
        return Err(StoreError::Engine(format!(
            "the database is of version {version}, which this program does not know; use the program that made it, or \
            another database"
        )));
    }
    Ok(())
}

fn foreign_tables() -> StoreError {
    StoreError::Engine(
        "the database holds tables of another program; make an empty one with `createdb`, and name it in the URL"
            .to_owned(),
    )
}

/// The version of the tables, and the least version that may use them; `None` if there are none.
async fn version(client: &Client) -> Result<Option<(u32, u32)>, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'syncdiffusion'),
        EXISTS (
            SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'syncdiffusion' AND c.relname = 'settings'
        )";
    let rows = query(client, sql, &[]).await?;
    let (schema, settings) = rows.first().map_or((false, false), |row| (row.get(0), row.get(1)));
    if !schema {
        return Ok(None);
    }
    let foreign = || {
        StoreError::Engine(
            "the database has a schema `syncdiffusion` that this program did not make; name another database"
                .to_owned(),
        )
    };
    if !settings {
        return Err(foreign());
    }
    let read = async |name: &'static str| -> Result<u32, StoreError> {
        let sql = "SELECT value FROM syncdiffusion.settings WHERE name = $1";
        let rows = query(client, sql, &[(&name, Type::TEXT)]).await?;
        rows.first().and_then(|row| row.get::<_, &str>(0).parse().ok()).ok_or_else(foreign)
    };
    Ok(Some((read("version").await?, read("least_version").await?)))
}

/// Whether there are tables of ours.
pub(super) async fn has_settings(client: &Client) -> Result<bool, StoreError> {
    Ok(version(client).await?.is_some())
}

/// Whether there are tables of others.
async fn is_used(client: &Client) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    )";
    Ok(query(client, sql, &[]).await?.first().is_some_and(|row| row.get(0)))
}

/// Whether the role may do what is needed.
async fn usable(client: &Client) -> Result<(), StoreError> {
    let sql = "SELECT coalesce(bool_and(CASE c.relkind
            WHEN 'S' THEN has_sequence_privilege(c.oid, 'USAGE')
            ELSE has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
        END), false), current_user::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'syncdiffusion' AND c.relkind IN ('r', 'S')";
    let rows = query(client, sql, &[]).await?;
    match rows.first() {
        Some(row) if !row.get::<_, bool>(0) => Err(StoreError::Engine(format!(
            "the role `{}` may not read and write the tables of the schema `syncdiffusion`; use the role that owns the \
            database",
            row.get::<_, &str>(1)
        ))),
        _ => Ok(()),
    }
}
