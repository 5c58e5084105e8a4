//! What was drawn for each name: a row a name, to which every end adds.

use rusqlite::{Connection, params};

use crate::store::error::StoreError;
use crate::store::record::Record;
use crate::store::usage::Usage;

/// Adds the end of a prediction, whose row has the name.
pub(super) fn add(connection: &Connection, record: &Record) -> Result<(), StoreError> {
    let Usage { predictions, succeeded, megapixels, seconds, .. } = Usage::of("", record);
    connection
        .prepare_cached(
            "INSERT INTO usage (name, predictions, succeeded, megapixels, seconds)
            SELECT tenant, ?2, ?3, ?4, ?5 FROM predictions WHERE seq = ?1
            ON CONFLICT (name) DO UPDATE SET predictions = predictions + excluded.predictions,
            succeeded = succeeded + excluded.succeeded, megapixels = megapixels + excluded.megapixels,
            seconds = seconds + excluded.seconds",
        )?
        .execute(params![record.seq, predictions, succeeded, megapixels, seconds])?;
    Ok(())
}

/// All of it, by name.
pub(super) fn read(connection: &Connection) -> Result<Vec<Usage>, StoreError> {
    let sql = "SELECT name, predictions, succeeded, megapixels, seconds FROM usage ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    let read = statement.query_map([], |row| {
        Ok(Usage {
            name: row.get(0)?,
            predictions: row.get(1)?,
            succeeded: row.get(2)?,
            megapixels: row.get(3)?,
            seconds: row.get(4)?,
        })
    })?;
    Ok(read.collect::<Result<_, _>>()?)
}
