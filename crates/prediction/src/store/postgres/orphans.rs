//! What goes from the bucket: objects whose rows were removed, soon after, and those that never had a row because their
//! node died or was refused, after a day.
//!
//! A copy of the database, restored from a backup, has the same folder in the bucket, and knows nothing of what was put
//! since. It must remove nothing. So each round of removal puts a new random name into an object, after it has written
//! it down in the database: of two databases, neither knows the names of the other's later rounds. That does not tell
//! which of them is the copy, as either may be the first to make a round. So whoever finds a name that it does not know
//! puts a mark beside it, and neither removes anything while that is there. The operator decides, and removes it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::sleep;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::agree::{MARK, ROUND, ROUNDS, SWEPT};
use super::link::Link;
use super::looks::QUICK;
use super::place::{Place, name};
use super::rows::{Value, query};
use super::settings;
use super::shared::Shared;
use crate::store::error::StoreError;

/// How often a node looks whether there is something to remove.
const LOOK: Duration = Duration::from_secs(5);
/// How often one of the nodes looks through the bucket. At most half of `MIN_AGE`: of two databases that have the same
/// folder, each makes a round, and one finds that of the other, before what it does not know is old enough.
const ROUND_EVERY: Duration = Duration::from_hours(12);
/// When to look again after a round that failed.
const RETRY: Duration = Duration::from_mins(10);
/// The least age of an object without a row to be removed: much longer than from putting it to the commit of its row.
pub(super) const MIN_AGE: Duration = Duration::from_hours(24);
/// How many objects are removed at a time.
const CHUNK: i64 = 500;
/// How many rounds are remembered, for nodes that were frozen in the middle of one.
const ROUNDS_KEPT: usize = 8;
/// What the mark says to whoever looks into the bucket.
const MARK_SAYS: &str = "Two databases have their pictures in this folder. Neither removes any while this is here; the \
    logs of their servers say what to do.";

/// Looks after the bucket, as long as there is the store.
pub(super) async fn upkeep(shared: Weak<Shared>) {
    let mut trouble = None;
    while let Some(store) = shared.upgrade() {
        if let Some(place) = store.objects.for_new() {
            let done = async {
                drain(&store, &place).await?;
                if due(&store).await? {
                    let swept = round(&store, &place, MIN_AGE).await;
                    match swept {
                        Ok(0) => {}
                        Ok(removed) => tracing::info!(removed, "objects that belong to no prediction were removed"),
                        Err(error) => {
                            postpone(&store).await?;
                            return Err(error);
                        }
                    }
                }
                Ok::<_, StoreError>(())
            };
            // Each trouble is told once.
            let found = done.await.err().map(|error| error.to_string());
            if found != trouble
                && let Some(error) = &found
            {
                tracing::error!(error, "pictures that are not needed any more stay in the bucket for now");
            }
            trouble = found;
        }
        let nudge = Arc::clone(&store.objects.nudge);
        drop(store);
        tokio::select! {
            () = sleep(LOOK) => {}
            () = nudge.notified() => {}
        }
    }
}

/// Removes objects whose rows were removed.
pub(super) async fn drain(shared: &Shared, place: &Place) -> Result<(), StoreError> {
    loop {
        let keys = shared.looks.read(unneeded).await?;
        if keys.is_empty() {
            return Ok(());
        }
        confirm(shared, place).await?;
        let (gone, error) = place.remove(&keys).await;
        shared.looks.call(|client| forget(client, gone.clone())).await?;
        if let Some(error) = error {
            return Err(error);
        }
    }
}

async fn unneeded(client: Arc<Client>) -> Result<Vec<String>, Error> {
    let sql = "SELECT key FROM syncdiffusion.unneeded_objects LIMIT $1";
    Ok(query(&client, sql, &[(&CHUNK, Type::INT8)]).await?.iter().map(|row| row.get(0)).collect())
}

async fn forget(client: Arc<Client>, keys: Vec<String>) -> Result<(), Error> {
    let sql = format!("{QUICK} DELETE FROM syncdiffusion.unneeded_objects o USING quick WHERE o.key = ANY ($1)");
    query(&client, &sql, &[(&keys, Type::TEXT_ARRAY)]).await.map(drop)
}

/// Makes sure that it is this database that removes objects, and no other one. Returns the round that the bucket names.
///
/// # Errors
/// If another one has the same folder, of which one is a copy.
async fn confirm(shared: &Shared, place: &Place) -> Result<String, StoreError> {
    let (round, rounds) = last_round(&shared.looks, place).await?;
    let round = if let Some(round) = round {
        round
    } else {
        // Somebody has removed it, and servers that start look for it.
        let last = rounds.rsplit(' ').next().unwrap_or_default().to_owned();
        place.put_as(ROUND, last.as_bytes(), "text/plain").await?;
        last
    };
    if is_foreign(&round, &rounds) {
        place.put_as(MARK, MARK_SAYS.as_bytes(), "text/plain").await?;
    } else if place.get_soon(MARK).await?.is_none() {
        return Ok(round);
    }
    Err(StoreError::Engine(two_databases(place, &round)))
}

/// What to do about another database with the same folder, if there is one. Nothing is changed.
///
/// # Errors
/// If the bucket or the database does not answer.
pub(super) async fn rival(looks: &Link, place: &Place) -> Result<Option<String>, StoreError> {
    let (Some(round), rounds) = last_round(looks, place).await? else { return Ok(None) };
    let found = is_foreign(&round, &rounds) || place.get_soon(MARK).await?.is_some();
    Ok(found.then(|| two_databases(place, &round)))
}

/// The last round of removal by the bucket, unless somebody has removed that object, and the rounds of this database.
async fn last_round(looks: &Link, place: &Place) -> Result<(Option<String>, String), StoreError> {
    let got = place.get_soon(ROUND).await?;
    // Later than the object, and a round is written down before it is put.
    let rounds = looks.read(|client| settings::known(client, ROUNDS)).await?.unwrap_or_default();
    Ok((got.map(|got| String::from_utf8_lossy(&got.bytes).into_owned()), rounds))
}

fn is_foreign(round: &str, rounds: &str) -> bool {
    rounds.split(' ').all(|known| known != round)
}

fn two_databases(place: &Place, round: &str) -> String {
    // It is to be copied from the log.
    let round: String = round.chars().filter(char::is_ascii_hexdigit).collect();
    format!(
        "two databases, of which one seems to be a copy of the other, have their pictures in one folder, and neither \
        removes any; stop the servers of the other one permanently, or give it a bucket of its own, then execute in \
        this one `UPDATE syncdiffusion.settings SET value = value || ' {round}' WHERE name = '{ROUNDS}'`, and then \
        remove the object {}",
        place.shown(MARK)
    )
}

/// Whether it is time for a round, and this node is the one that makes it.
async fn due(shared: &Shared) -> Result<bool, StoreError> {
    let take = async |client: Arc<Client>| {
        let sql = format!(
            "{QUICK} UPDATE syncdiffusion.settings SET value = extract(epoch FROM clock_timestamp())::text FROM quick
            WHERE name = $1 AND value::double precision NOT BETWEEN extract(epoch FROM clock_timestamp()) - $2
                AND extract(epoch FROM clock_timestamp()) RETURNING name"
        );
        let every = ROUND_EVERY.as_secs_f64();
        let values: [Value<'_>; 2] = [(&SWEPT, Type::TEXT), (&every, Type::FLOAT8)];
        Ok(!query(&client, &sql, &values).await?.is_empty())
    };
    Ok(shared.looks.call(take).await?)
}

/// Has the next round come soon.
async fn postpone(shared: &Shared) -> Result<(), StoreError> {
    let put_off = async |client: Arc<Client>| {
        let sql = format!(
            "{QUICK} UPDATE syncdiffusion.settings SET value = (extract(epoch FROM clock_timestamp()) - $2)::text
            FROM quick WHERE name = $1"
        );
        let ago = ROUND_EVERY.as_secs_f64() - RETRY.as_secs_f64();
        query(&client, &sql, &[(&SWEPT, Type::TEXT), (&ago, Type::FLOAT8)]).await.map(drop)
    };
    Ok(shared.looks.call(put_off).await?)
}

/// The rounds to remember once the next one is written down: the last ones. The one that the bucket names now is always
/// among them, however often the next one could not be put there.
fn remembered(rounds: &str, current: &str, next: &str) -> String {
    let before: Vec<&str> = rounds.split(' ').filter(|round| !round.is_empty() && *round != current).collect();
    let last = &before[before.len().saturating_sub(ROUNDS_KEPT - 2)..];
    [last, &[current, next]].concat().join(" ")
}

/// Looks through the whole bucket, and removes what no row names and is older than `age`; how much that was.
pub(super) async fn round(shared: &Shared, place: &Place, age: Duration) -> Result<u64, StoreError> {
    let current = confirm(shared, place).await?;
    let (rounds, next) =
        (shared.looks.read(|client| settings::known(client, ROUNDS)).await?.unwrap_or_default(), name()?);
    let kept = remembered(&rounds, &current, &next);
    // It outlives a crash: without it this database would be taken for another one.
    if !shared.truth.call(async |client: Arc<Client>| settings::replace(client, ROUNDS, &rounds, &kept).await).await? {
        // Another node makes one.
        return Ok(0);
    }
    place.put_as(ROUND, next.as_bytes(), "text/plain").await?;
    // The clock of the bucket, by which objects have their age.
    let Some(got) = place.get(ROUND).await? else { return Ok(0) };
    let before = got.put_at - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    let (mut listed, mut removed) = (place.list(), 0);
    while let Some(page) = listed.next().await {
        let old = page?
            .into_iter()
            .filter(|object| object.put_at <= before && ![ROUND, MARK].contains(&object.name.as_str()));
        let old: Vec<String> = old.map(|object| object.name).collect();
        let unknown = shared.looks.read(|client| unknown(client, old.clone())).await?;
        if unknown.is_empty() {
            continue;
        }
        // The other database, if there is one, may have found this round meanwhile.
        confirm(shared, place).await?;
        let (gone, error) = place.remove(&unknown).await;
        removed += gone.len() as u64;
        if let Some(error) = error {
            return Err(error);
        }
    }
    Ok(removed)
}

/// Those of some objects that no row names.
async fn unknown(client: Arc<Client>, keys: Vec<String>) -> Result<Vec<String>, Error> {
    if keys.is_empty() {
        return Ok(keys);
    }
    let sql = "SELECT k.key FROM unnest($1) AS k (key)
        WHERE NOT EXISTS (SELECT FROM syncdiffusion.objects o WHERE o.key = k.key)";
    Ok(query(&client, sql, &[(&keys, Type::TEXT_ARRAY)]).await?.iter().map(|row| row.get(0)).collect())
}
