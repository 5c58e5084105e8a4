//! Pages of records, all of them or those whose prompt contains a text.
//!
//! There is no index of texts: a search reads records in their order, and ends after as many as [`Search`] allows.

use rusqlite::{CachedStatement, Connection, Params, ToSql, params};

use super::rows::{COLUMNS, Unreadable, record, records};
use crate::store::error::StoreError;
use crate::store::record::{Found, Query, Search};

/// A page of records.
pub(super) fn search(connection: &Connection, query: Query<'_>, unreadable: &Unreadable) -> Result<Found, StoreError> {
    let order = if query.after.is_some() { "ASC" } else { "DESC" };
    let range = "seq > ?1 AND seq < ?2";
    let after = query.after.map_or(-1, |after| after.min(i64::MAX as u64) as i64);
    let before = query.before.map_or(i64::MAX, |before| before.min(i64::MAX as u64) as i64);
    // A search ends by itself.
    let limit = if query.text.is_some() { -1 } else { query.limit as i64 };
    let read = |sql: &str, values: &[&dyn ToSql]| {
        let mut statement = connection.prepare_cached(sql)?;
        match query.text {
            Some(text) => searched(&mut statement, values, (text, query.limit), unreadable),
            None => Ok(Found { records: records(&mut statement, values, unreadable)?, looked: None }),
        }
    };
    // Two statements, so that each is looked up by an index of its own.
    let mut found = if let Some(status) = query.status {
        let sql =
            format!("SELECT {COLUMNS} FROM predictions WHERE status = ?4 AND {range} ORDER BY seq {order} LIMIT ?3");
        read(&sql, params![after, before, limit, status.name()])?
    } else {
        let sql = format!("SELECT {COLUMNS} FROM predictions WHERE {range} ORDER BY seq {order} LIMIT ?3");
        read(&sql, params![after, before, limit])?
    };
    if query.after.is_some() {
        found.records.reverse();
    }
    Ok(found)
}

/// The records of a query whose prompt contains a text, as far as a search goes.
fn searched(
    statement: &mut CachedStatement<'_>,
    values: impl Params,
    (text, limit): (&str, usize),
    unreadable: &Unreadable,
) -> Result<Found, StoreError> {
    let (mut search, mut found, mut last) = (Search::new(text), Found::default(), None);
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        if found.records.len() == limit {
            break;
        }
        if !search.goes_on() {
            found.looked = last;
            break;
        }
        let seq = row.get(4)?;
        last = Some(seq);
        let json = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if search.finds_in(json) {
            found.records.extend(unreadable.skip(seq, record(row)?));
        }
    }
    Ok(found)
}
