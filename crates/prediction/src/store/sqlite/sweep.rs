//! Retention in small steps, between which others get their turn.
//!
//! A step removes at most [`MAX_RECORDS`] records or [`MAX_BYTES`] of pictures in a transaction. Its pages go back to
//! the disk by a few at a time, before the next step: SQLite looks through all free pages for each one that it returns,
//! so a long list of them takes time by its square. After each, a checkpoint lets the log begin again, so it does not
//! grow with what is removed.

use rusqlite::Connection;

use super::rows::{self, ENDED};
use crate::store::error::StoreError;
use crate::store::record::Retention;
use crate::time::Time;

/// The greatest number of records that a transaction removes.
pub(super) const MAX_RECORDS: usize = 50;
/// Bytes of pictures after which a transaction removes no more.
const MAX_BYTES: u64 = 16 << 20;
/// The greatest number of pages that a transaction returns to the disk.
const MAX_PAGES: u64 = 1024;
/// The same on a full disk: these may have to move through the log.
const FEW_PAGES: u64 = 16;

/// What a step removes, the oldest first; nothing when nothing is too old or too much.
pub(super) fn choose(connection: &Connection, retention: &Retention, now: Time) -> Result<Chosen, StoreError> {
    let mut chosen = Chosen::default();
    if let Some(age) = retention.age {
        let before = now.micros().saturating_sub_unsigned(age.as_micros().min(u128::from(u64::MAX)) as u64);
        let sql = format!(
            "SELECT seq, bytes FROM predictions INDEXED BY predictions_by_end
            WHERE {ENDED} AND owed = 0 AND completed_at < ?1 ORDER BY completed_at"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([before])?;
        while let Some(row) = rows.next()?
            && chosen.add(row.get(0)?, row.get(1)?)
        {}
    }
    if chosen.seqs.is_empty() && (retention.count.is_some() || retention.bytes.is_some()) {
        // How many are at least as new as the one that is looked at, and how many bytes they have.
        let (mut count, mut bytes) = totals(connection)?;
        let sql =
            format!("SELECT seq, bytes, owed FROM predictions INDEXED BY predictions_ended WHERE {ENDED} ORDER BY seq");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        let is_beyond = |most: Option<u64>, is: u64| most.is_some_and(|most| is > most);
        while is_beyond(retention.count, count) || is_beyond(retention.bytes, bytes) {
            let Some(row) = rows.next()? else { break };
            let size: u64 = row.get(1)?;
            if !row.get::<_, bool>(2)? && !chosen.add(row.get(0)?, size) {
                break;
            }
            count -= 1;
            bytes -= size;
        }
    }
    Ok(chosen)
}

/// What a step removes.
#[derive(Default)]
pub(super) struct Chosen {
    /// Numbers of predictions.
    pub(super) seqs: Vec<u64>,
    /// Whether there is more to remove than a step may.
    pub(super) more: bool,
    bytes: u64,
}

impl Chosen {
    /// Adds a record if the step has room for it.
    fn add(&mut self, seq: u64, bytes: u64) -> bool {
        let fits = self.seqs.is_empty() || (self.seqs.len() < MAX_RECORDS && self.bytes + bytes <= MAX_BYTES);
        if fits {
            self.seqs.push(seq);
            self.bytes += bytes;
        }
        self.more |= !fits;
        fits
    }
}

/// Removes what a step removes, and returns it.
pub(super) fn step(connection: &Connection, retention: &Retention, now: Time) -> Result<Chosen, StoreError> {
    let chosen = choose(connection, retention, now)?;
    chosen.seqs.iter().try_for_each(|&seq| rows::remove(connection, seq))?;
    Ok(chosen)
}

/// How many predictions have ended, and how many bytes their pictures have.
fn totals(connection: &Connection) -> Result<(u64, u64), StoreError> {
    let mut statement = connection.prepare_cached("SELECT count, bytes FROM totals")?;
    Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Returns some free pages to the disk, outside of a transaction; false if there are no more.
pub(super) fn shrink(connection: &Connection, is_full: bool) -> Result<bool, StoreError> {
    let pages = if is_full { FEW_PAGES } else { MAX_PAGES };
    let free = |connection: &Connection| connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u64>(0));
    let before = free(connection)?;
    if before > 0 {
        let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
    }
    // The answer is a row of numbers; a checkpoint that readers hold up is done by a later one.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    let after = free(connection)?;
    // A database that was made without the setting has no pages to return.
    Ok(after > 0 && after < before)
}
