//! The statements: what is sent, and how the answers are read. None of them is named or prepared, so that a pooler may
//! give each another connection.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use crate::mutex::lock;
use crate::store::ends;
use crate::store::error::StoreError;
use crate::store::record::{Picture, Record, Which};
use crate::time::Time;
use crate::wire::{Metrics, Status};

/// Before what stands for another character in an id; of the private use area, which hardly anybody uses.
const ESCAPE: char = '\u{e000}';

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

pub(super) fn one(rows: Vec<Row>) -> Option<Row> {
    rows.into_iter().next()
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

/// The end of what is held and has a record that cannot be read. The row is one of [`super::writes::held`].
pub(super) fn unreadable(row: &Row, why: &StoreError, now: Time) -> Result<Record, StoreError> {
    let (seq, attempts, id): (i64, i32, &str) = (row.get(0), row.get(3), row.get(6));
    let mut record = ends::unreadable(row.get(1), id_of(id).into_owned(), why, now)?;
    (record.seq, record.attempts) = (seq as u64, attempts as u32);
    record.prediction.started_at = row.get::<_, Option<i64>>(4).map(Time::from_micros);
    Ok(record)
}

/// Metrics that a running prediction has said.
pub(super) fn metrics(text: Option<&str>) -> Metrics {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Remembers which records could not be read, so that each costs one line of the log.
#[derive(Default)]
pub(super) struct Unreadable {
    told: Mutex<HashSet<i64>>,
    /// Those of them that nobody looks after: numbers, and whether they had ended.
    orphans: Mutex<BTreeSet<(i64, bool)>>,
}

impl Unreadable {
    /// Skips what cannot be read.
    pub(super) fn skip(&self, row: &Row) -> Option<Record> {
        let read = record(row).inspect_err(|error| {
            if lock(&self.told).insert(row.get(0)) {
                tracing::error!(
                    %error,
                    "a record is left out; if its prediction has not ended, it fails when it is claimed; DELETE removes \
                    it"
                );
            }
        });
        read.ok()
    }

    /// The records of rows that can be read.
    pub(super) fn records(&self, rows: &[Row]) -> Vec<Record> {
        rows.iter().filter_map(|row| self.skip(row)).collect()
    }

    /// Whether an orphan can be read. Where it cannot, it is not looked at again until it has ended. The row is one of
    /// [`super::nodes::orphans`].
    pub(super) fn is_for_us(&self, row: &Row) -> bool {
        let is_for_us = self.skip(row).is_some();
        if !is_for_us {
            lock(&self.orphans).insert((row.get(0), row.get(5)));
        }
        is_for_us
    }

    /// The orphans that could not be read: their numbers, and whether they had ended.
    pub(super) fn orphans(&self) -> (Vec<i64>, Vec<bool>) {
        lock(&self.orphans).iter().copied().unzip()
    }
}

/// A picture that lies in the bucket.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) which: Which,
    pub(super) media: String,
    pub(super) file: Option<String>,
    pub(super) size: u64,
    /// Its name in the bucket.
    pub(super) key: String,
}

/// Pictures to store.
pub(super) enum Contents {
    /// In a table.
    Here(Vec<Picture>),
    /// In the bucket, where they are already.
    There(Vec<Object>),
}

impl Contents {
    /// How many bytes are sent to the database.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Here(pictures) => pictures.iter().map(|picture| picture.bytes.len()).sum(),
            Self::There(_) => 0,
        }
    }
}

/// Pictures as columns.
#[derive(Default)]
pub(super) struct Columns<'a> {
    kinds: Vec<String>,
    numbers: Vec<i32>,
    medias: Vec<&'a str>,
    files: Vec<Option<&'a str>>,
    contents: Vec<&'a [u8]>,
    sizes: Vec<i64>,
    keys: Vec<&'a str>,
    are_there: bool,
}

impl<'a> Columns<'a> {
    pub(super) fn new(pictures: &'a Contents) -> Self {
        let mut columns = Self::default();
        match pictures {
            Contents::Here(pictures) => {
                for Picture { which, media, file, bytes } in pictures {
                    columns.name(which, media, file.as_deref());
                    columns.contents.push(bytes);
                }
            }
            Contents::There(objects) => {
                columns.are_there = true;
                for Object { which, media, file, size, key } in objects {
                    columns.name(which, media, file.as_deref());
                    columns.sizes.push(number(*size));
                    columns.keys.push(key);
                }
            }
        }
        columns
    }

    fn name(&mut self, which: &Which, media: &'a str, file: Option<&'a str>) {
        self.kinds.push(which.kind.to_string());
        self.numbers.push(which.n as i32);
        self.medias.push(media);
        self.files.push(file);
    }

    /// Their values: bytes last, or else sizes and names in the bucket.
    pub(super) fn values(&self) -> Vec<Value<'_>> {
        let mut values: Vec<Value<'_>> = vec![
            (&self.kinds, Type::TEXT_ARRAY),
            (&self.numbers, Type::INT4_ARRAY),
            (&self.medias, Type::TEXT_ARRAY),
            (&self.files, Type::TEXT_ARRAY),
        ];
        if self.are_there {
            values.extend::<[Value<'_>; 2]>([(&self.sizes, Type::INT8_ARRAY), (&self.keys, Type::TEXT_ARRAY)]);
        } else {
            values.push((&self.contents, Type::BYTEA_ARRAY));
        }
        values
    }
}

/// A picture as it was found.
pub(super) struct Found {
    pub(super) which: Which,
    pub(super) media: String,
    pub(super) file: Option<String>,
    pub(super) body: Body,
}

/// Where the bytes of a picture are.
#[derive(Debug)]
pub(super) enum Body {
    Here(Arc<[u8]>),
    /// In the bucket, under this name.
    There(String),
}

/// Reads a body of its two columns, of which one is null.
fn body(row: &Row, bytes: usize, key: usize) -> Body {
    match row.get::<_, Option<String>>(key) {
        Some(key) => Body::There(key),
        None => Body::Here(row.get::<_, &[u8]>(bytes).into()),
    }
}

/// All pictures, wherever they are.
const ALL: &str = "(
        SELECT seq, kind, n, media, file, bytes, NULL AS key FROM syncdiffusion.pictures
        UNION ALL SELECT seq, kind, n, media, file, NULL, key FROM syncdiffusion.objects
    ) AS p";

/// A picture of a prediction.
pub(super) async fn picture(client: &Client, seq: i64, which: &Which) -> Result<Option<Found>, Error> {
    let sql = format!("SELECT media, file, bytes, key FROM {ALL} WHERE seq = $1 AND kind = $2 AND n = $3");
    let (kind, n) = (which.kind.to_string(), which.n as i32);
    let rows = query(client, &sql, &[(&seq, Type::INT8), (&kind, Type::TEXT), (&n, Type::INT4)]).await?;
    Ok(rows.first().map(|row| Found {
        which: which.clone(),
        media: row.get(0),
        file: row.get(1),
        body: body(row, 2, 3),
    }))
}

/// The picture that is served under a name.
pub(super) async fn named(client: &Client, name: &str) -> Result<Option<Body>, Error> {
    let sql = format!("SELECT bytes, key FROM {ALL} WHERE file = $1");
    Ok(query(client, &sql, &[(&name, Type::TEXT)]).await?.first().map(|row| body(row, 0, 1)))
}

/// The outputs of a prediction after the first.
pub(super) async fn more(client: &Client, seq: i64) -> Result<Vec<Body>, Error> {
    let sql = format!("SELECT bytes, key FROM {ALL} WHERE seq = $1 AND kind = 'output' AND n > 0 ORDER BY n");
    let rows = query(client, &sql, &[(&seq, Type::INT8)]).await?;
    Ok(rows.iter().map(|row| body(row, 0, 1)).collect())
}

/// An id as it is in its column. No text of PostgreSQL has a zero character.
pub(super) fn stored_id(id: &str) -> Cow<'_, str> {
    if id.contains(['\0', ESCAPE]) {
        id.replace(ESCAPE, "\u{e000}e").replace('\0', "\u{e000}0").into()
    } else {
        id.into()
    }
}

/// The id that is stored as this.
fn id_of(stored: &str) -> Cow<'_, str> {
    if stored.contains(ESCAPE) {
        stored.replace("\u{e000}0", "\0").replace("\u{e000}e", "\u{e000}").into()
    } else {
        stored.into()
    }
}

/// The number of an id.
pub(super) async fn seq(client: &Client, id: &str) -> Result<Option<i64>, Error> {
    let sql = "SELECT seq FROM syncdiffusion.predictions WHERE id = $1";
    let rows = query(client, sql, &[(&stored_id(id), Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// What a node holds: number and token.
pub(super) fn claim_of(row: &Row) -> (u64, Uuid) {
    (row.get::<_, i64>(0) as u64, row.get(1))
}
