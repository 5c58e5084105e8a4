//! Retention in small steps, between which others get their turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::rows::{ENDED, NOW, Value, number, query};
use super::shared::Shared;
use crate::store::error::StoreError;
use crate::store::mutex::lock;
use crate::store::record::Retention;

/// The greatest number of predictions that a step removes.
const MAX_RECORDS: i64 = 100;
/// Counting all that is kept is put off where it takes longer than this.
const LONG: Duration = Duration::from_millis(200);
/// For how long, as a multiple of what it took.
const REST: u32 = 100;

/// What is removed by a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Age,
    Size,
}

/// Removes some of what a rule does not keep; how many, and whether there may be more.
pub(super) async fn step(shared: &Shared, rule: Rule, retention: Retention) -> Result<(u64, bool), StoreError> {
    match rule {
        Rule::Age => Ok(shared.truth.call(|client| by_age(client, retention)).await?),
        Rule::Size => {
            let is_early = lock(&shared.sweep).is_some_and(|next| Instant::now() < next);
            if is_early {
                return Ok((0, false));
            }
            let began = Instant::now();
            let done = shared.truth.call(|client| by_size(client, retention)).await?;
            // It counts all that is kept.
            let took = began.elapsed();
            *lock(&shared.sweep) = (took > LONG && !done.1).then(|| began + REST * took);
            Ok(done)
        }
    }
}

/// Removes some of what is too old; how many, and whether there may be more. The clock is that of the server: a node
/// whose clock is fast would remove what is new.
async fn by_age(client: Arc<Client>, retention: Retention) -> Result<(u64, bool), Error> {
    let Some(age) = retention.age else { return Ok((0, false)) };
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT seq FROM syncdiffusion.predictions WHERE {ENDED} AND NOT owed AND completed_at < {NOW} - $1
        ORDER BY completed_at LIMIT {MAX_RECORDS} FOR UPDATE SKIP LOCKED"
    );
    remove(&client, &sql, &[(&age, Type::INT8)]).await
}

/// Removes some of what is too much, the oldest first.
async fn by_size(client: Arc<Client>, retention: Retention) -> Result<(u64, bool), Error> {
    if retention.count.is_none() && retention.bytes.is_none() {
        return Ok((0, false));
    }
    let most = |most: Option<u64>| most.map_or(i64::MAX, number);
    let (count, bytes) = (most(retention.count), most(retention.bytes));
    let sql = format!(
        "SELECT seq FROM (
            SELECT seq, owed, row_number() OVER line AS count, sum(bytes) OVER line AS bytes
            FROM syncdiffusion.predictions WHERE {ENDED} WINDOW line AS (ORDER BY seq DESC)
        ) ended WHERE NOT owed AND (count > $1 OR bytes > $2) ORDER BY seq LIMIT {MAX_RECORDS}"
    );
    remove(&client, &sql, &[(&count, Type::INT8), (&bytes, Type::INT8)]).await
}

async fn remove(client: &Client, choose: &str, values: &[Value<'_>]) -> Result<(u64, bool), Error> {
    let sql = format!(
        "WITH chosen AS MATERIALIZED ({choose})
        SELECT count(*), syncdiffusion.remove(coalesce(array_agg(seq), '{{}}')) FROM chosen"
    );
    let rows = query(client, &sql, values).await?;
    let gone = rows.first().map_or(0, |row| row.get::<_, i64>(0));
    Ok((gone as u64, gone == MAX_RECORDS))
}
