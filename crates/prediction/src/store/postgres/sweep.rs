//! Retention. What is to go is chosen beside the writes, and removed among them in small steps, between which others
//! get their turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::lane::Lane;
use super::rows::{ENDED, NOW, Value, number, query};
use super::shared::Shared;
use crate::mutex::lock;
use crate::store::error::StoreError;
use crate::store::record::Retention;

/// The greatest number of predictions that are chosen at a time.
const MAX_CHOSEN: usize = 1_000;
/// The greatest number of predictions that a step removes.
const MAX_RECORDS: usize = 100;
/// The bytes of pictures that a step removes, unless a single prediction has more: each is marked piece by piece, and
/// other writes of this node wait meanwhile.
const MAX_BYTES: i64 = 64 << 20;
/// Counting all that is kept rests where it took longer than this.
const LONG: Duration = Duration::from_millis(200);
/// For how long, as a multiple of what it took.
const REST: u32 = 100;
/// For how long at most where it has failed, which need not be for its length.
const MAX_REST_OF_FAILED: Duration = Duration::from_mins(10);

/// A rule of retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Age,
    Size,
}

/// How long it rests after counting all that is kept.
fn rest(took: Duration, failed: bool) -> Option<Duration> {
    let rest = took.saturating_mul(REST);
    (took > LONG).then(|| if failed { rest.min(MAX_REST_OF_FAILED) } else { rest })
}

/// A prediction that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chosen {
    seq: i64,
    bytes: i64,
}

/// Removes what is not to be kept; how many.
pub(super) async fn sweep(shared: &Arc<Shared>, lane: &Lane, retention: Retention) -> Result<u64, StoreError> {
    let mut gone = 0;
    for rule in [Rule::Age, Rule::Size] {
        if rule == Rule::Size && lock(&shared.sweep).is_some_and(|next| Instant::now() < next) {
            continue;
        }
        loop {
            let chosen = choose(shared, rule, retention).await?;
            let removed = remove_chosen(shared, lane, &chosen).await?;
            gone += removed;
            // Where none is gone, another node removes them.
            if chosen.len() < MAX_CHOSEN || removed == 0 {
                break;
            }
        }
    }
    Ok(gone)
}

/// Chooses some of what a rule does not keep, and notes how long the one rests that counts all that is kept.
async fn choose(shared: &Shared, rule: Rule, retention: Retention) -> Result<Vec<Chosen>, StoreError> {
    if rule == Rule::Age {
        return shared.bytes.read(async |client: Arc<Client>| by_age(&client, retention).await).await;
    }
    let began = Instant::now();
    // Counting may read all that has ended, for which neither beats nor writes wait.
    let count = async |client: Arc<Client>| {
        let began = Instant::now();
        Ok((by_size(&client, retention).await?, began.elapsed()))
    };
    let counted = shared.bytes.read(count).await;
    // It would take as long again, also where it has failed for that. After a failure this is with all tries.
    let took = counted.as_ref().map_or_else(|_| began.elapsed(), |(_, took)| *took);
    *lock(&shared.sweep) = rest(took, counted.is_err()).map(|rest| Instant::now() + rest);
    Ok(counted?.0)
}

/// Removes what was chosen; how many.
async fn remove_chosen(shared: &Arc<Shared>, lane: &Lane, chosen: &[Chosen]) -> Result<u64, StoreError> {
    let mut gone = 0;
    for step in steps(chosen) {
        let shared = Arc::clone(shared);
        let removed = lane.steps(async move { Ok(shared.truth.call(|client| remove(client, step.clone())).await?) });
        gone += removed.await?;
    }
    Ok(gone)
}

/// Cuts what is to go into steps.
fn steps(chosen: &[Chosen]) -> Vec<Vec<i64>> {
    let (mut steps, mut step, mut bytes) = (Vec::new(), Vec::new(), 0_i64);
    for one in chosen {
        bytes = bytes.saturating_add(one.bytes);
        if !step.is_empty() && (step.len() == MAX_RECORDS || bytes > MAX_BYTES) {
            steps.push(std::mem::take(&mut step));
            bytes = one.bytes;
        }
        step.push(one.seq);
    }
    if !step.is_empty() {
        steps.push(step);
    }
    steps
}

/// Some of what is too old. The clock is that of the server: a node whose clock is fast would remove what is new.
async fn by_age(client: &Client, retention: Retention) -> Result<Vec<Chosen>, Error> {
    let Some(age) = retention.age else { return Ok(Vec::new()) };
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT seq, bytes FROM syncdiffusion.predictions WHERE {ENDED} AND NOT owed AND completed_at < {NOW} - $1
        ORDER BY completed_at LIMIT {MAX_CHOSEN}"
    );
    chosen(client, &sql, &[(&age, Type::INT8)]).await
}

/// Some of what is too much, the oldest first.
async fn by_size(client: &Client, retention: Retention) -> Result<Vec<Chosen>, Error> {
    if retention.count.is_none() && retention.bytes.is_none() {
        return Ok(Vec::new());
    }
    let most = |most: Option<u64>| most.map_or(i64::MAX, number);
    let (count, bytes) = (most(retention.count), most(retention.bytes));
    let sql = format!(
        "SELECT seq, bytes FROM (
            SELECT seq, owed, bytes, row_number() OVER line AS count, sum(bytes) OVER line AS all_bytes
            FROM syncdiffusion.predictions WHERE {ENDED} WINDOW line AS (ORDER BY seq DESC)
        ) ended WHERE NOT owed AND (count > $1 OR all_bytes > $2) ORDER BY seq LIMIT {MAX_CHOSEN}"
    );
    chosen(client, &sql, &[(&count, Type::INT8), (&bytes, Type::INT8)]).await
}

async fn chosen(client: &Client, sql: &str, values: &[Value<'_>]) -> Result<Vec<Chosen>, Error> {
    let rows = query(client, sql, values).await?;
    Ok(rows.iter().map(|row| Chosen { seq: row.get(0), bytes: row.get(1) }).collect())
}

/// Removes what was chosen and is not removed by another node in this moment; how many.
async fn remove(client: Arc<Client>, seqs: Vec<i64>) -> Result<u64, Error> {
    let sql = format!(
        "WITH chosen AS MATERIALIZED (
            SELECT seq FROM syncdiffusion.predictions WHERE seq = ANY ($1) AND {ENDED} AND NOT owed
            ORDER BY seq FOR UPDATE SKIP LOCKED
        )
        SELECT count(*), syncdiffusion.remove(coalesce(array_agg(seq), '{{}}')) FROM chosen"
    );
    let rows = query(&client, &sql, &[(&seqs, Type::INT8_ARRAY)]).await?;
    Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_rests_where_it_took_long_and_not_for_hours_where_it_has_failed() {
        let (short, long) = (LONG, Duration::from_secs(20));
        assert_eq!((rest(short, false), rest(short, true)), (None, None));
        assert_eq!(rest(long, false), Some(REST * long));
        assert_eq!(rest(long, true), Some(MAX_REST_OF_FAILED));
        assert_eq!(rest(Duration::from_secs(1), true), Some(Duration::from_secs(100)));
    }

    #[test]
    fn a_step_is_small_in_records_and_in_bytes() {
        let cut = |bytes: &[i64]| {
            let chosen: Vec<_> = bytes.iter().zip(0..).map(|(&bytes, seq)| Chosen { seq, bytes }).collect();
            steps(&chosen).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[]), [0; 0]);
        assert_eq!(cut(&[1; 250]), [100, 100, 50]);
        assert_eq!(cut(&[MAX_BYTES / 2; 5]), [2, 2, 1]);
        // One that is larger goes by itself.
        assert_eq!(cut(&[1, 2 * MAX_BYTES, 1, 1]), [1, 1, 2]);
        assert_eq!(cut(&[i64::MAX; 3]), [1, 1, 1]);
        let all: Vec<_> = (0..7).map(|seq| Chosen { seq, bytes: MAX_BYTES / 3 }).collect();
        assert_eq!(steps(&all).concat(), [0, 1, 2, 3, 4, 5, 6]);
    }
}
