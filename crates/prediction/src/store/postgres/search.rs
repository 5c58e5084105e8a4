//! Pages of records, all of them or those whose prompt contains a text.
//!
//! There is no index of texts: a search reads records in their order, some at a time, and ends after as many as
//! [`Search`] allows.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::link::Link;
use super::rows::{COLUMNS, Unreadable, Value, number, query};
use crate::store::error::StoreError;
use crate::store::record::{Found, Search};
use crate::wire::Status;

/// How many records a search reads at a time.
const CHUNK: usize = 100;

/// A query of its own, see [`crate::store::Query`].
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) before: Option<u64>,
    pub(super) after: Option<u64>,
    pub(super) status: Option<Status>,
    pub(super) text: Option<String>,
    pub(super) limit: usize,
}

/// A page of records.
pub(super) async fn search(link: &Link, asked: Asked, unreadable: &Unreadable) -> Result<Found, StoreError> {
    let mut found = if let Some(text) = &asked.text {
        searched(link, &asked, Search::new(text), unreadable).await?
    } else {
        let rows = link.read(|client| list(client, asked.clone())).await?;
        Found { records: unreadable.records(&rows), looked: None }
    };
    if asked.after.is_some() {
        found.records.reverse();
    }
    Ok(found)
}

/// The records of a query whose prompt contains a text, as far as a search goes, in the order in which they are read.
async fn searched(
    link: &Link,
    asked: &Asked,
    mut search: Search,
    unreadable: &Unreadable,
) -> Result<Found, StoreError> {
    let (mut found, mut next) = (Found::default(), Asked { limit: CHUNK, ..asked.clone() });
    let mut last = None;
    loop {
        let rows = link.read(|client| list(client, next.clone())).await?;
        for row in &rows {
            if found.records.len() == asked.limit {
                return Ok(found);
            }
            if !search.goes_on() {
                found.looked = last;
                return Ok(found);
            }
            last = Some(row.get::<_, i64>(0) as u64);
            if search.finds_in(row.get(1)) {
                found.records.extend(unreadable.skip(row));
            }
        }
        if rows.len() < CHUNK {
            return Ok(found);
        }
        if asked.after.is_some() {
            next.after = last;
        } else {
            next.before = last;
        }
    }
}

/// Some records, in the order in which they are looked for.
async fn list(client: Arc<Client>, asked: Asked) -> Result<Vec<Row>, Error> {
    let order = if asked.after.is_some() { "ASC" } else { "DESC" };
    // Several statements, so that each is looked up by an index of its own.
    let status = match asked.status {
        None => "",
        // As a condition of the table says, which no index does.
        Some(Status::Processing) => "AND p.status = $4 AND p.node IS NOT NULL",
        Some(_) => "AND p.status = $4",
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM syncdiffusion.predictions p WHERE p.seq > $1 AND p.seq < $2 {status}
        ORDER BY p.seq {order} LIMIT $3"
    );
    let (after, before) = (asked.after.map_or(-1, number), asked.before.map_or(i64::MAX, number));
    let limit = i64::try_from(asked.limit).unwrap_or(i64::MAX);
    let name = asked.status.map(Status::name);
    let mut values: Vec<Value<'_>> = vec![(&after, Type::INT8), (&before, Type::INT8), (&limit, Type::INT8)];
    if name.is_some() {
        values.push((&name, Type::TEXT));
    }
    query(&client, &sql, &values).await
}
