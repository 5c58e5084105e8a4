//! The statements that write and read records and pictures.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::counted;
use crate::mutex::lock;
use crate::store::error::StoreError;
use crate::store::jobs::Opened;
use crate::store::queue::Entry;
use crate::store::record::{Kind, Picture, Record, Stored, Which};
use crate::time::Time;
use crate::wire::Status;

pub(super) const UNFINISHED: &str = "status IN ('starting', 'processing')";
pub(super) const ENDED: &str = "status IN ('succeeded', 'failed', 'canceled')";

/// The columns that [`record`] reads.
pub(super) const COLUMNS: &str = "record, status, attempts, started_at, seq";

fn text(record: &Record) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Inserts the record of a new prediction, in place of one with the same id.
pub(super) fn insert(
    connection: &Connection,
    record: &Record,
    entry: Option<&Entry>,
    (wire, key): (u32, Option<&str>),
) -> Result<(), StoreError> {
    let prediction = &record.prediction;
    if let Some(old) = seq(connection, &prediction.id)? {
        remove(connection, old)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO predictions
            (seq, id, status, attempts, started_at, completed_at, record, file, tenant, units, rank, wire, key)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            record.seq,
            prediction.id,
            prediction.status.name(),
            record.attempts,
            prediction.started_at.map(Time::micros),
            prediction.completed_at.map(Time::micros),
            text(record)?,
            record.file,
            entry.map_or("", |entry| &entry.tenant),
            entry.map_or(0.0, |entry| entry.units),
            entry.map(|entry| entry.turn.rank),
            wire,
            key
        ])?;
    Ok(())
}

/// Stores the end of a prediction.
pub(super) fn end(
    connection: &Connection,
    record: &Record,
    pictures: &[Picture],
    owed: bool,
) -> Result<(), StoreError> {
    let prediction = &record.prediction;
    let changed = connection
        .prepare_cached(
            "UPDATE predictions SET status = ?1, attempts = ?2, started_at = ?3, completed_at = ?4, owed = ?5,
            record = ?6, file = ?7, claim = NULL, stop = NULL WHERE seq = ?8 AND id = ?9",
        )?
        .execute(params![
            prediction.status.name(),
            record.attempts,
            prediction.started_at.map(Time::micros),
            prediction.completed_at.map(Time::micros),
            owed,
            text(record)?,
            record.file,
            record.seq,
            prediction.id
        ])?;
    if changed != 1 {
        return Err(StoreError::Engine(format!(
            "the record of `{}` is gone; another program has changed it",
            prediction.id
        )));
    }
    counted::add(connection, record)?;
    add_pictures(connection, record.seq, pictures)
}

/// Stores pictures beside a record, in place of those they name.
pub(super) fn add_pictures(connection: &Connection, seq: u64, pictures: &[Picture]) -> Result<(), StoreError> {
    for Picture { which, media, file, bytes } in pictures {
        let (kind, n) = (which.kind.to_string(), which.n);
        let size = "SELECT length(bytes) FROM pictures WHERE seq = ?1 AND kind = ?2 AND n = ?3";
        let old: Option<u64> =
            connection.prepare_cached(size)?.query_row(params![seq, kind, n], |row| row.get(0)).optional()?;
        connection
            .prepare_cached(
                "INSERT INTO pictures (seq, n, kind, media, file, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                ON CONFLICT (seq, kind, n) DO UPDATE
                SET media = excluded.media, file = excluded.file, bytes = excluded.bytes",
            )?
            .execute(params![seq, n, kind, media, file, bytes])?;
        let more = bytes.len() as i64 - old.unwrap_or(0) as i64;
        connection
            .prepare_cached("UPDATE predictions SET bytes = bytes + ?1 WHERE seq = ?2")?
            .execute(params![more, seq])?;
    }
    Ok(())
}

/// Notes that a prediction was claimed.
pub(super) fn claim(connection: &Connection, record: &Record, token: Uuid) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE predictions SET status = 'processing', started_at = ?1, attempts = ?2, claim = ?3
        WHERE seq = ?4 AND {UNFINISHED}"
    );
    connection.prepare_cached(&sql)?.execute(params![
        record.prediction.started_at.map(Time::micros),
        record.attempts,
        token.to_string(),
        record.seq
    ])?;
    Ok(())
}

/// Notes that a prediction waits again.
pub(super) fn back(connection: &Connection, record: &Record) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE predictions SET status = 'starting', started_at = NULL, attempts = ?1, claim = NULL, record = ?2
        WHERE seq = ?3 AND {UNFINISHED}"
    );
    connection.prepare_cached(&sql)?.execute(params![record.attempts, text(record)?, record.seq])?;
    Ok(())
}

/// Stores the wish to stop a prediction.
pub(super) fn stop(connection: &Connection, seq: u64) -> Result<(), StoreError> {
    let sql = format!("UPDATE predictions SET stop = 'canceled' WHERE seq = ?1 AND {UNFINISHED}");
    connection.prepare_cached(&sql)?.execute([seq])?;
    Ok(())
}

/// Notes that nothing is held by anybody: the process that held it is gone.
pub(super) fn release(connection: &Connection) -> Result<(), StoreError> {
    let sql = "UPDATE predictions SET status = 'starting', started_at = NULL, claim = NULL WHERE status = 'processing'";
    connection.execute(sql, [])?;
    Ok(())
}

/// The webhook of a prediction is delivered.
pub(super) fn mark_delivered(connection: &Connection, id: &str, seq: u64) -> Result<(), StoreError> {
    let sql = "UPDATE predictions SET owed = 0 WHERE seq = ?1 AND id = ?2";
    connection.prepare_cached(sql)?.execute(params![seq, id])?;
    Ok(())
}

/// Removes a prediction that has ended, or whose record cannot be read, and returns its number.
pub(super) fn delete(connection: &Connection, id: &str) -> Result<Option<u64>, StoreError> {
    let Some((seq, status, _)) = known(connection, id)? else { return Ok(None) };
    if !status.is_terminal() && !matches!(read(connection, seq), Err(StoreError::Corrupt(_))) {
        return Ok(None);
    }
    remove(connection, seq)?;
    Ok(Some(seq))
}

/// Removes a record and its pictures.
pub(super) fn remove(connection: &Connection, seq: u64) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM pictures WHERE seq = ?1",
        "DELETE FROM pictures_2 WHERE seq = ?1",
        "DELETE FROM predictions WHERE seq = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([seq])?;
    }
    Ok(())
}

/// The number of an id.
pub(super) fn seq(connection: &Connection, id: &str) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT seq FROM predictions WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| row.get(0)).optional()?)
}

/// Number and status of an id, and whether its webhook has yet to be delivered.
pub(super) fn known(connection: &Connection, id: &str) -> Result<Option<(u64, Status, bool)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT seq, status, owed FROM predictions WHERE id = ?1")?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?));
    let found: Option<(u64, String, bool)> = statement.query_row([id], read).optional()?;
    Ok(found.map(|(seq, status, owed)| (seq, Status::from_name(&status).unwrap_or(Status::Starting), owed)))
}

/// The number of an `Idempotency-Key`.
pub(super) fn seq_of_key(connection: &Connection, tenant: &str, key: &str) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT seq FROM predictions WHERE tenant = ?1 AND key = ?2")?;
    Ok(statement.query_row([tenant, key], |row| row.get(0)).optional()?)
}

/// A record, with what the columns know better.
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Result<Record, StoreError>> {
    let text: String = row.get(0)?;
    let status: String = row.get(1)?;
    let (attempts, started_at, seq) = (row.get(2)?, row.get::<_, Option<i64>>(3)?, row.get(4)?);
    Ok(serde_json::from_str(&text)
        .map(|record: Record| {
            let mut record = Record { seq, attempts, ..record };
            record.prediction.status = Status::from_name(&status).unwrap_or(record.prediction.status);
            record.prediction.started_at = started_at.map(Time::from_micros);
            record
        })
        .map_err(|error| StoreError::Corrupt(format!("number {seq}: {error}"))))
}

/// Remembers which records could not be read, so that each costs one line of the log.
#[derive(Default)]
pub(super) struct Unreadable(Mutex<HashSet<u64>>);

impl Unreadable {
    /// Skips what cannot be read.
    pub(super) fn skip<T>(&self, seq: u64, read: Result<T, StoreError>) -> Option<T> {
        read.inspect_err(|error| {
            if lock(&self.0).insert(seq) {
                tracing::error!(%error, "a record is left out; DELETE of its prediction removes it");
            }
        })
        .ok()
    }
}

/// All records of a query that can be read.
pub(super) fn records(
    statement: &mut CachedStatement<'_>,
    values: impl rusqlite::Params,
    unreadable: &Unreadable,
) -> Result<Vec<Record>, StoreError> {
    let rows = statement.query_map(values, |row| Ok((row.get(4)?, record(row)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (seq, read) = row?;
        found.extend(unreadable.skip(seq, read));
    }
    Ok(found)
}

/// The record of a number.
pub(super) fn read(connection: &Connection, seq: u64) -> Result<Option<Record>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM predictions WHERE seq = ?1");
    connection.prepare_cached(&sql)?.query_row([seq], record).optional()?.transpose()
}

/// The prediction of a number, with its first picture.
pub(super) fn stored(connection: &Connection, seq: u64) -> Result<Option<Stored>, StoreError> {
    let sql = format!("SELECT {COLUMNS}, owed FROM predictions WHERE seq = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_row([seq], |row| Ok((record(row)?, row.get(5)?))).optional()?;
    let Some((record, owed)) = found else { return Ok(None) };
    let picture = picture(connection, seq, &Which::FIRST)?.map(|picture| picture.bytes);
    let record = record?;
    let more = if record.prediction.input.num_outputs > 1 { more(connection, seq)? } else { Vec::new() };
    Ok(Some(Stored { record, picture, more, owed }))
}

/// The outputs of a prediction after the first.
fn more(connection: &Connection, seq: u64) -> Result<Vec<Arc<[u8]>>, StoreError> {
    let sql = "SELECT bytes FROM pictures WHERE seq = ?1 AND kind = 'output' AND n > 0 ORDER BY n";
    let mut statement = connection.prepare_cached(sql)?;
    let read = statement.query_map([seq], |row| Ok(row.get::<_, Vec<u8>>(0)?.into()))?;
    Ok(read.collect::<Result<_, _>>()?)
}

/// A picture of a prediction.
pub(super) fn picture(connection: &Connection, seq: u64, which: &Which) -> Result<Option<Picture>, StoreError> {
    let sql = "SELECT media, file, bytes FROM pictures WHERE seq = ?1 AND kind = ?2 AND n = ?3";
    let read = |row: &Row<'_>| {
        let bytes: Vec<u8> = row.get(2)?;
        Ok(Picture { which: which.clone(), media: row.get(0)?, file: row.get(1)?, bytes: bytes.into() })
    };
    let values = params![seq, which.kind.to_string(), which.n];
    let found = connection.prepare_cached(sql)?.query_row(values, read).optional()?;
    if found.is_some() || *which != Which::FIRST {
        return Ok(found);
    }
    let mut old = connection.prepare_cached("SELECT png FROM pictures_2 WHERE seq = ?1")?;
    let png: Option<Vec<u8>> = old.query_row([seq], |row| row.get(0)).optional()?;
    Ok(png.map(|png| Picture { which: Which::FIRST, media: "image/png".to_owned(), file: None, bytes: png.into() }))
}

/// The bytes that are served under a name.
pub(super) fn file(connection: &Connection, name: &str) -> Result<Option<Arc<[u8]>>, StoreError> {
    let mut named = connection.prepare_cached("SELECT seq, kind, n FROM pictures WHERE file = ?1")?;
    let found = named.query_row([name], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?))).optional()?;
    let (seq, which) = if let Some((seq, kind, n)) = found {
        (seq, Which { kind: kind.parse().unwrap_or(Kind::Output), n })
    } else {
        let mut first = connection.prepare_cached("SELECT seq FROM predictions WHERE file = ?1")?;
        let Some(seq) = first.query_row([name], |row| row.get(0)).optional()? else { return Ok(None) };
        (seq, Which::FIRST)
    };
    Ok(picture(connection, seq, &which)?.map(|picture| picture.bytes))
}

/// All that owes its webhook, in the order of acceptance.
pub(super) fn owed(connection: &Connection, unreadable: &Unreadable) -> Result<Vec<Record>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM predictions WHERE owed ORDER BY seq");
    records(&mut connection.prepare_cached(&sql)?, [], unreadable)
}

/// The numbers of all that owes its webhook.
pub(super) fn owed_seqs(connection: &Connection) -> Result<Vec<u64>, StoreError> {
    let mut statement = connection.prepare("SELECT seq FROM predictions WHERE owed ORDER BY seq")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// All that has not ended, with what the queue needs to know.
pub(super) fn opened(connection: &Connection, unreadable: &Unreadable) -> Result<Vec<Opened>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, tenant, units, rank, wire, stop IS NOT NULL FROM predictions WHERE {UNFINISHED} ORDER BY seq"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(record) = unreadable.skip(row.get(4)?, record(row)?) else { continue };
        let (tenant, units, rank) = (row.get(5)?, row.get(6)?, row.get(7)?);
        found.push(Opened { record, tenant, units, rank, wire: row.get(8)?, stop: row.get(9)? });
    }
    Ok(found)
}

/// The greatest number that is stored.
pub(super) fn last_seq(connection: &Connection) -> Result<u64, StoreError> {
    Ok(connection.query_row("SELECT coalesce(max(seq), 0) FROM predictions", [], |row| row.get(0))?)
}
