//! The statements: what is sent, and how the answers are read. None of them is named or prepared, so that a pooler may
//! give each another connection.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use crate::store::error::StoreError;
use crate::store::record::{Picture, Record, Which};
use crate::time::Time;
use crate::wire::{Metrics, Status};

pub(super) const ENDED: &str = "status IN ('succeeded', 'failed', 'canceled')";

/// Microseconds since 1970 by the clock of the server.
pub(super) const NOW: &str = "(extract(epoch FROM now()) * 1e6)::bigint";

/// The columns that [`record`] reads, of `predictions p`.
pub(super) const COLUMNS: &str = "p.seq, p.record, p.status, p.attempts, p.started_at";

/// A value of a statement with its type.
pub(super) type Value<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) async fn query(client: &Client, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
    client.query_typed(sql, values).await
}

/// A number as PostgreSQL stores it.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A record as text.
pub(super) fn text(record: &Record) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// A record, with what the columns know better.
pub(super) fn record(row: &Row) -> Result<Record, StoreError> {
    let (seq, text, status): (i64, &str, &str) = (row.get(0), row.get(1), row.get(2));
    let (attempts, started_at): (i32, Option<i64>) = (row.get(3), row.get(4));
    let record: Record =
        serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("number {seq}: {error}")))?;
    let mut record = Record { seq: seq as u64, attempts: attempts as u32, ..record };
    record.prediction.status = Status::from_name(status).unwrap_or(record.prediction.status);
    record.prediction.started_at = started_at.map(Time::from_micros);
    Ok(record)
}

/// Metrics that a running prediction has said.
pub(super) fn metrics(text: Option<&str>) -> Metrics {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Remembers which records could not be read, so that each costs one line of the log.
#[derive(Default)]
pub(super) struct Unreadable(Mutex<HashSet<i64>>);

impl Unreadable {
    /// Skips what cannot be read.
    pub(super) fn skip(&self, row: &Row) -> Option<Record> {
        let read = record(row).inspect_err(|error| {
            if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(row.get(0)) {
                tracing::error!(%error, "a record is left out; DELETE of its prediction removes it");
            }
        });
        read.ok()
    }

    /// The records of rows that can be read.
    pub(super) fn records(&self, rows: &[Row]) -> Vec<Record> {
        rows.iter().filter_map(|row| self.skip(row)).collect()
    }
}

/// Pictures as columns.
#[derive(Default)]
pub(super) struct Pictures<'a> {
    kinds: Vec<String>,
    numbers: Vec<i32>,
    medias: Vec<&'a str>,
    files: Vec<Option<&'a str>>,
    contents: Vec<&'a [u8]>,
}

impl<'a> Pictures<'a> {
    pub(super) fn new(pictures: &'a [Picture]) -> Self {
        let mut columns = Self::default();
        for Picture { which, media, file, bytes } in pictures {
            columns.kinds.push(which.kind.to_string());
            columns.numbers.push(which.n as i32);
            columns.medias.push(media);
            columns.files.push(file.as_deref());
            columns.contents.push(bytes);
        }
        columns
    }

    pub(super) fn values(&self) -> [Value<'_>; 5] {
        [
            (&self.kinds, Type::TEXT_ARRAY),
            (&self.numbers, Type::INT4_ARRAY),
            (&self.medias, Type::TEXT_ARRAY),
            (&self.files, Type::TEXT_ARRAY),
            (&self.contents, Type::BYTEA_ARRAY),
        ]
    }
}

/// A picture of a prediction.
pub(super) async fn picture(client: &Client, seq: i64, which: &Which) -> Result<Option<Picture>, Error> {
    let sql = "SELECT media, file, bytes FROM syncdiffusion.pictures WHERE seq = $1 AND kind = $2 AND n = $3";
    let (kind, n) = (which.kind.to_string(), which.n as i32);
    let rows = query(client, sql, &[(&seq, Type::INT8), (&kind, Type::TEXT), (&n, Type::INT4)]).await?;
    Ok(rows.first().map(|row| Picture {
        which: which.clone(),
        media: row.get(0),
        file: row.get(1),
        bytes: row.get::<_, &[u8]>(2).into(),
    }))
}

/// The outputs of a prediction after the first.
pub(super) async fn more(client: &Client, seq: i64) -> Result<Vec<Arc<[u8]>>, Error> {
    let sql = "SELECT bytes FROM syncdiffusion.pictures WHERE seq = $1 AND kind = 'output' AND n > 0 ORDER BY n";
    let rows = query(client, sql, &[(&seq, Type::INT8)]).await?;
    Ok(rows.iter().map(|row| row.get::<_, &[u8]>(0).into()).collect())
}

/// The number of an id.
pub(super) async fn seq(client: &Client, id: &str) -> Result<Option<i64>, Error> {
    let rows = query(client, "SELECT seq FROM syncdiffusion.predictions WHERE id = $1", &[(&id, Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// What a node holds: number and token.
pub(super) fn claim_of(row: &Row) -> (u64, Uuid) {
    (row.get::<_, i64>(0) as u64, row.get(1))
}
