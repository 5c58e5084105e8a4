//! The writes of a life: one statement each.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::rows::{self, Columns, Contents, Value, number, one, query, stored_id};
use crate::store::error::StoreError;
use crate::store::record::Record;
use crate::store::usage::Usage;
use crate::store::work::{Board, Claim, Claimed, Outcome, Room, Wants};
use crate::time::Time;

/// A prediction to accept, as it is sent.
pub(super) struct Accept {
    /// Names this request.
    pub(super) request: Uuid,
    pub(super) id: String,
    pub(super) tenant: String,
    pub(super) key: Option<String>,
    pub(super) idempotent: bool,
    pub(super) units: f64,
    pub(super) wire: u32,
    pub(super) version: Option<String>,
    pub(super) record: String,
    pub(super) inputs: Contents,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) new: Option<i64>,
    pub(super) known: Option<i64>,
    /// How much waits, where it was looked at.
    pub(super) board: Option<Board>,
}

/// Accepts a prediction, or finds that an earlier try of this request did. `since` is what this node has accepted since
/// it was told how much waits.
pub(super) async fn accept(
    client: Arc<Client>,
    node: u64,
    new: Arc<Accept>,
    (room, since): (Room, Board),
) -> Result<Asked, Error> {
    let (me, wire) = (number(node), new.wire as i32);
    let (free, jobs, more) = (number(room.free), number(room.jobs), number(since.waiting));
    let pictures = Columns::new(&new.inputs);
    let mut values: Vec<Value<'_>> = vec![
        (&me, Type::INT8),
        (&new.request, Type::UUID),
        (&new.id, Type::TEXT),
        (&new.tenant, Type::TEXT),
        (&new.key, Type::TEXT),
        (&new.idempotent, Type::BOOL),
        (&new.units, Type::FLOAT8),
        (&wire, Type::INT4),
        (&new.version, Type::TEXT),
        (&new.record, Type::TEXT),
        (&free, Type::INT8),
        (&jobs, Type::INT8),
        (&room.units, Type::FLOAT8),
        (&more, Type::INT8),
        (&since.units, Type::FLOAT8),
    ];
    values.extend(pictures.values());
    let (function, last) = match new.inputs {
        Contents::Here(_) => ("accept", ""),
        Contents::There(_) => ("accept_with_objects", ", $21"),
    };
    let sql = format!(
        "SELECT new_seq, known, waiting, units
        FROM syncdiffusion.{function}(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20{last}
        )"
    );
    let row = one(query(&client, &sql, &values).await?);
    Ok(row.map_or_else(Asked::default, |row| {
        let waiting: Option<i64> = row.get(2);
        let board = waiting.zip(row.get(3)).map(|(waiting, units)| Board { waiting: waiting as u64, units });
        Asked { new: row.get(0), known: row.get(1), board }
    }))
}

pub(super) async fn claim(client: Arc<Client>, node: u64, wants: Wants, now: Time) -> Result<Vec<Row>, Error> {
    let (me, places) = (number(node), number(wants.places as u64));
    let (wire, now, waited) = (wants.wire as i32, now.micros(), format!("{} microseconds", wants.waited.as_micros()));
    let values: [Value<'_>; 8] = [
        (&me, Type::INT8),
        (&places, Type::INT8),
        (&wants.alone, Type::BOOL),
        (&waited, Type::TEXT),
        (&wire, Type::INT4),
        (&wants.units, Type::FLOAT8),
        (&now, Type::INT8),
        (&wants.version, Type::TEXT),
    ];
    let sql = "SELECT seq, record, 'processing', attempts, $7, claim, units, tenant
        FROM syncdiffusion.claim($1, $2, $3, $4::interval, $5, $6, $8, $7) ORDER BY rank, seq";
    query(&client, sql, &values).await
}

/// The number and the token of a row that [`claim`], [`held`] or [`super::nodes::held_by`] has returned.
pub(super) fn claim_of(row: &Row) -> (u64, Uuid) {
    (row.get::<_, i64>(0) as u64, row.get(5))
}

/// A claimed prediction.
///
/// # Errors
/// If its record cannot be read.
pub(super) fn claimed(row: &Row, now: Time) -> Result<Claimed, StoreError> {
    let record = rows::record(row)?;
    Ok(Claimed {
        claim: Claim { seq: record.seq, token: row.get(5) },
        attempts: record.attempts,
        started_at: now,
        units: row.get(6),
        tenant: row.get(7),
        record: Arc::new(record),
    })
}

/// An end, as it is sent.
pub(super) struct Finish {
    pub(super) claim: Claim,
    pub(super) record: Record,
    pub(super) canceled: Record,
    pub(super) text: String,
    pub(super) canceled_text: String,
    pub(super) pictures: Contents,
}

impl Finish {
    /// What came of it, by the answer of [`finish`].
    pub(super) fn outcome(&self, canceled: Option<bool>) -> Outcome {
        match canceled {
            Some(true) => Outcome::Ended(Box::new(self.canceled.clone())),
            Some(false) => Outcome::Ended(Box::new(self.record.clone())),
            None => Outcome::Fenced,
        }
    }
}

/// Whether it ended as canceled; `None` if the claim does not hold.
pub(super) async fn finish(client: Arc<Client>, end: Arc<Finish>) -> Result<Option<bool>, Error> {
    let Finish { claim, record, text, canceled_text, pictures, .. } = &*end;
    let (seq, status, owes) = (number(claim.seq), record.prediction.status.name(), record.owes());
    let (began, ended) = (micros(record.prediction.started_at), micros(record.prediction.completed_at));
    let used = Usage::of("", record);
    let (function, last) = match pictures {
        Contents::Here(_) => ("finish", ""),
        Contents::There(_) => ("finish_with_objects", ", $17"),
    };
    let pictures = Columns::new(pictures);
    let mut values: Vec<Value<'_>> = vec![
        (&seq, Type::INT8),
        (&claim.token, Type::UUID),
        (&status, Type::TEXT),
        (text, Type::TEXT),
        (canceled_text, Type::TEXT),
        (&began, Type::INT8),
        (&ended, Type::INT8),
        (&record.file, Type::TEXT),
        (&owes, Type::BOOL),
        (&used.megapixels, Type::FLOAT8),
        (&used.seconds, Type::FLOAT8),
    ];
    values.extend(pictures.values());
    let sql = format!(
        "SELECT syncdiffusion.{function}(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16{last}
        )"
    );
    Ok(one(query(&client, &sql, &values).await?).and_then(|row| row.get(0)))
}

pub(super) fn micros(time: Option<Time>) -> Option<i64> {
    time.map(Time::micros)
}

/// Stores the wish to stop, or the end of what waits; the status after it, `None` if it has ended already.
pub(super) async fn stop(client: Arc<Client>, end: &Record, text: &str) -> Result<Option<String>, Error> {
    let (seq, ended, owes) = (number(end.seq), micros(end.prediction.completed_at), end.owes());
    let seconds = Usage::of("", end).seconds;
    let sql = "SELECT syncdiffusion.stop($1, $2, $3, $4, $5, $6)";
    let values: [Value<'_>; 6] = [
        (&seq, Type::INT8),
        (&stored_id(&end.prediction.id), Type::TEXT),
        (&text, Type::TEXT),
        (&ended, Type::INT8),
        (&owes, Type::BOOL),
        (&seconds, Type::FLOAT8),
    ];
    Ok(one(query(&client, sql, &values).await?).and_then(|row| row.get(0)))
}

/// What is held under a token.
pub(super) async fn held(client: Arc<Client>, claim: Claim) -> Result<Option<Row>, Error> {
    let sql = format!(
        "SELECT {}, p.claim, p.id FROM syncdiffusion.predictions p
        WHERE p.seq = $1 AND p.claim = $2 AND p.status = 'processing'",
        rows::COLUMNS
    );
    Ok(one(query(&client, &sql, &[(&number(claim.seq), Type::INT8), (&claim.token, Type::UUID)]).await?))
}

/// Whether what is held under a token is to stop; `None` if it is not held.
pub(super) async fn is_to_stop(client: Arc<Client>, claim: Claim) -> Result<Option<bool>, Error> {
    let sql = "SELECT stop FROM syncdiffusion.predictions WHERE seq = $1 AND claim = $2 AND status = 'processing'";
    let values: [Value<'_>; 2] = [(&number(claim.seq), Type::INT8), (&claim.token, Type::UUID)];
    Ok(one(query(&client, sql, &values).await?).map(|row| row.get(0)))
}

/// What has ended under a token.
pub(super) async fn ended(client: Arc<Client>, claim: Claim) -> Result<Option<Row>, Error> {
    let sql = format!(
        "SELECT {} FROM syncdiffusion.predictions p WHERE p.seq = $1 AND p.claim = $2 AND p.{}",
        rows::COLUMNS,
        rows::ENDED
    );
    Ok(one(query(&client, &sql, &[(&number(claim.seq), Type::INT8), (&claim.token, Type::UUID)]).await?))
}

/// Gives back what is held; whether it ended as canceled instead, `None` if the claim does not hold.
pub(super) async fn give_back(
    client: Arc<Client>,
    claim: &Claim,
    counted: bool,
    (waiting, canceled): (&str, &str),
    end: &Record,
) -> Result<Option<bool>, Error> {
    let (seq, ended, owes) = (number(claim.seq), micros(end.prediction.completed_at), end.owes());
    let seconds = Usage::of("", end).seconds;
    let values: [Value<'_>; 8] = [
        (&seq, Type::INT8),
        (&claim.token, Type::UUID),
        (&counted, Type::BOOL),
        (&waiting, Type::TEXT),
        (&canceled, Type::TEXT),
        (&ended, Type::INT8),
        (&owes, Type::BOOL),
        (&seconds, Type::FLOAT8),
    ];
    let sql = "SELECT syncdiffusion.give_back($1, $2, $3, $4, $5, $6, $7, $8)";
    Ok(one(query(&client, sql, &values).await?).and_then(|row| row.get(0)))
}

/// The prediction of an id.
pub(super) async fn find(client: Arc<Client>, id: &str) -> Result<Option<Row>, Error> {
    let sql = format!("SELECT {} FROM syncdiffusion.predictions p WHERE p.id = $1", rows::COLUMNS);
    Ok(one(query(&client, &sql, &[(&stored_id(id), Type::TEXT)]).await?))
}

/// Removes a prediction.
pub(super) async fn remove(client: Arc<Client>, seq: i64) -> Result<(), Error> {
    let sql = "SELECT syncdiffusion.remove(ARRAY[$1::bigint])";
    query(&client, sql, &[(&seq, Type::INT8)]).await.map(drop)
}

/// The webhook of a prediction is delivered.
pub(super) async fn mark_delivered(client: Arc<Client>, id: String, seq: i64) -> Result<(), Error> {
    let sql = "UPDATE syncdiffusion.predictions SET owed = false WHERE seq = $1 AND id = $2 AND owed";
    query(&client, sql, &[(&seq, Type::INT8), (&id, Type::TEXT)]).await.map(drop)
}

/// Stores a picture beside a prediction, if that is still there.
pub(super) async fn add_picture(
    client: Arc<Client>,
    id: String,
    seq: i64,
    picture: Arc<Contents>,
) -> Result<bool, Error> {
    let function = match *picture {
        Contents::Here(_) => "keep(seq, $3, $4, $5, $6, $7)",
        Contents::There(_) => "put_objects(seq, $3, $4, $5, $6, $7, $8)",
    };
    let pictures = Columns::new(&picture);
    let mut values: Vec<Value<'_>> = vec![(&seq, Type::INT8), (&id, Type::TEXT)];
    values.extend(pictures.values());
    let sql = format!("SELECT syncdiffusion.{function} FROM syncdiffusion.predictions WHERE seq = $1 AND id = $2");
    Ok(!query(&client, &sql, &values).await?.is_empty())
}
