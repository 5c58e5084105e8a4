//! What a node of the store has in memory, and the writes that take several statements.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::link::Link;
use super::looks;
use super::nodes::{self, Estate};
use super::putting::Objects;
use super::rows::{self, Contents, Unreadable};
use super::writes::{self, Asked, Finish};
use crate::mutex::lock;
use crate::store::ends;
use crate::store::error::StoreError;
use crate::store::record::Record;
use crate::store::work::{Adopted, Beat, Board, Claim, Claimed, MAX_ATTEMPTS, NOBODY, Node, Outcome, Said, Stopped};
use crate::time::Time;
use crate::wire::Metrics;

/// How often reaping looks again at what a node holds that is taken for dead.
const MAX_LOOKS: usize = 5;
/// How many beats look for claims after the answer to one was lost: the server may be at it still.
const STRAY_LOOKS: u32 = 15;

/// What a node has in memory. Nothing of it is the truth.
pub(super) struct Shared {
    /// For writes in their order.
    pub(super) truth: Arc<Link>,
    /// For beats, and for what is small and changes nothing.
    pub(super) looks: Arc<Link>,
    /// For reads of pictures and files, and for those that may take long.
    pub(super) bytes: Arc<Link>,
    /// For files of clients that come in.
    pub(super) uploads: Arc<Link>,
    /// Not a node's number while this one was taken for dead and has no new one yet.
    pub(super) node: AtomicU64,
    /// How many milliseconds a beat may take.
    pub(super) patience: AtomicU64,
    /// How many claims this node was ever given.
    pub(super) handed_out: AtomicU64,
    /// How much waits, as the last answer said.
    pub(super) board: Mutex<Board>,
    /// What this node has accepted since its last beat.
    pub(super) since: Mutex<Board>,
    /// The claims that this node was told of and that it has not been told the end of.
    pub(super) known: Mutex<BTreeSet<(u64, Uuid)>>,
    /// Whether predictions of several versions of a model waited when that was last looked at.
    pub(super) mixed: AtomicBool,
    /// How often it is yet to be looked for claims that this node was not told of.
    pub(super) strays: AtomicU32,
    /// Whether that is under way.
    pub(super) straying: AtomicBool,
    /// When all that is kept is counted again for retention: not often where that takes long.
    pub(super) sweep: Mutex<Option<Instant>>,
    /// Ids that may have been accepted without an answer.
    pub(super) lost: Mutex<Vec<String>>,
    /// Claims whose end may have been stored without an answer.
    pub(super) unsure: Mutex<HashSet<Claim>>,
    pub(super) unreadable: Unreadable,
    /// Pictures that lie in a bucket.
    pub(super) objects: Objects,
}

/// A look for claims that this node was not told of. There is one at a time, which is over when this is dropped.
pub(super) struct Straying(Arc<Shared>);

impl Straying {
    /// Begins one, if there is to be another.
    pub(super) fn begin(shared: &Arc<Shared>) -> Option<Self> {
        let begins = shared.strays.load(Ordering::Relaxed) > 0 && !shared.straying.swap(true, Ordering::Relaxed);
        begins.then(|| Self(Arc::clone(shared)))
    }

    /// Gives back what is found. To be called in the order of claims.
    pub(super) async fn give_back(self) -> Result<(), StoreError> {
        self.0.give_back_strays().await
    }
}

impl Drop for Straying {
    fn drop(&mut self) {
        self.0.straying.store(false, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn me(&self) -> Node {
        self.node.load(Ordering::Relaxed)
    }

    /// Nothing that this node holds has a smaller number.
    pub(super) fn held_from(&self) -> u64 {
        if self.strays.load(Ordering::Relaxed) > 0 {
            return 0;
        }
        lock(&self.known).first().map_or(u64::MAX, |(seq, _)| *seq)
    }

    /// Counts what was accepted.
    pub(super) fn count(&self, asked: &Asked, units: f64) {
        if asked.known.is_some() {
            return;
        }
        let mut board = lock(&self.board);
        if asked.new.is_some() {
            let mut since = lock(&self.since);
            for board in [&mut *since, &mut *board] {
                *board = Board { waiting: board.waiting + 1, units: board.units + units };
            }
        }
        if let Some(told) = asked.board {
            *board = told;
        }
    }

    /// Notes a claim whose record cannot be read. Nobody here works on it, so it is given back when beats tell of it,
    /// and fails then.
    pub(super) fn note_unreadable(&self, row: &Row, error: &StoreError) {
        tracing::error!(%error, "a prediction was claimed whose record cannot be read; it fails");
        lock(&self.known).insert(writes::claim_of(row));
    }

    /// Notes what this node was given.
    pub(super) fn hand_out(&self, claimed: &[Claimed]) {
        self.handed_out.fetch_add(claimed.len() as u64, Ordering::Relaxed);
        lock(&self.known).extend(claimed.iter().map(|claimed| (claimed.claim.seq, claimed.claim.token)));
        let mut board = lock(&self.board);
        for claimed in claimed {
            board.waiting = board.waiting.saturating_sub(1);
            board.units = if board.waiting == 0 { 0.0 } else { board.units - claimed.units };
        }
    }

    pub(super) fn forget(&self, claim: Claim) {
        lock(&self.known).remove(&(claim.seq, claim.token));
    }

    /// The answer to a claim was lost.
    pub(super) fn expect_strays(&self) {
        self.strays.store(STRAY_LOOKS, Ordering::Relaxed);
    }

    /// Whether this node was taken for dead, and has no new number yet.
    pub(super) fn is_dead(&self) -> bool {
        self.me() == NOBODY
    }

    /// Gets a new number.
    pub(super) async fn register(&self) -> Result<(), StoreError> {
        let node = self.truth.call(async |client: Arc<Client>| nodes::register(&client).await).await?;
        self.node.store(node, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn beat(&self, about: String, said: Arc<Vec<Said>>) -> Result<Beat, StoreError> {
        let patience = Duration::from_millis(self.patience.load(Ordering::Relaxed));
        let before = std::mem::take(&mut *lock(&self.since));
        let beaten = self
            .looks
            .once_within(patience, |client| looks::beat(client, (self.me(), self.held_from()), about, said))
            .await;
        let alive = beaten.inspect_err(|_| {
            let mut since = lock(&self.since);
            since.waiting += before.waiting;
            since.units += before.units;
        })?;
        if let Some(alive) = alive {
            if let Beat::Alive { board, .. } = &alive {
                *lock(&self.board) = *board;
            }
            return Ok(alive);
        }
        // A new number now would be one for claims that are made before anybody here knows of this death.
        self.node.store(NOBODY, Ordering::Relaxed);
        lock(&self.known).clear();
        Ok(Beat::Dead)
    }

    /// Gives back what this node holds without having been told.
    async fn give_back_strays(&self) -> Result<(), StoreError> {
        let held = self.truth.call(|client| nodes::held_by(client, self.me())).await?;
        for row in &held {
            let claim = Claim { seq: row.get::<_, i64>(0) as u64, token: row.get(5) };
            if lock(&self.known).contains(&(claim.seq, claim.token)) {
                continue;
            }
            if let Err(error) = rows::record(row) {
                // Whoever ends it looks after its webhook, too.
                self.note_unreadable(row, &error);
                continue;
            }
            tracing::warn!(seq = claim.seq, "a claim whose answer was lost is given back");
            if let Outcome::Ended(record) = self.give_back(claim, false, None).await? {
                ends::announce(&record);
            }
        }
        self.strays.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).unwrap_or_default();
        Ok(())
    }

    /// Gives a claim back. Logs are those that it has if there are none here.
    pub(super) async fn give_back(
        &self,
        claim: Claim,
        counted: bool,
        logs: Option<String>,
    ) -> Result<Outcome, StoreError> {
        let Some(row) = self.truth.call(|client| writes::held(client, claim)).await? else {
            self.forget(claim);
            return Ok(Outcome::Fenced);
        };
        let mut waiting = match rows::record(&row) {
            Ok(record) => record,
            Err(error) => return self.fail_unreadable(claim, &row, &error).await,
        };
        waiting.prediction.logs = logs.unwrap_or(waiting.prediction.logs);
        let canceled = ends::canceled(&waiting, Time::now());
        waiting.prediction.metrics = Metrics::default();
        let texts = (rows::text(&waiting)?, rows::text(&canceled)?);
        let back = self
            .truth
            .call(async |client: Arc<Client>| {
                writes::give_back(client, &claim, counted, (&texts.0, &texts.1), &canceled).await
            })
            .await?;
        self.forget(claim);
        Ok(match back {
            None => Outcome::Fenced,
            Some(false) => Outcome::Waits,
            Some(true) => Outcome::Ended(Box::new(canceled)),
        })
    }

    /// Ends a claim whose record cannot be read: nobody could draw it, and whoever waits for it is to be answered.
    async fn fail_unreadable(&self, claim: Claim, row: &Row, why: &StoreError) -> Result<Outcome, StoreError> {
        let record = rows::unreadable(row, why, Time::now())?;
        let canceled = ends::canceled_instead(record.clone());
        let (text, canceled_text) = (rows::text(&record)?, rows::text(&canceled)?);
        let end =
            Arc::new(Finish { claim, record, canceled, text, canceled_text, pictures: Contents::Here(Vec::new()) });
        let ended = self.truth.call(|client| writes::finish(client, Arc::clone(&end))).await?;
        self.forget(claim);
        Ok(end.outcome(ended))
    }

    pub(super) async fn stop(&self, id: &str, seq: Option<u64>) -> Result<Stopped, StoreError> {
        let found = self.truth.call(|client| writes::find(client, id)).await?;
        let Some(row) = found else { return Ok(Stopped::Unknown) };
        let record = rows::record(&row)?;
        if record.prediction.status.is_terminal() || seq.is_some_and(|seq| seq != record.seq) {
            return Ok(Stopped::TooLate);
        }
        let end = ends::canceled(&record, Time::now());
        let text = rows::text(&end)?;
        let status = self.truth.call(async |client: Arc<Client>| writes::stop(client, &end, &text).await).await?;
        Ok(match status.as_deref() {
            None => Stopped::TooLate,
            Some("canceled") => Stopped::Ended(Box::new(end)),
            Some(_) => Stopped::Asked,
        })
    }

    pub(super) async fn reap(&self, node: Node, beat: u64) -> Result<bool, StoreError> {
        for _ in 0..MAX_LOOKS {
            let now = Time::now();
            let held = self.truth.call(|client| nodes::held_by(client, node)).await?;
            let mut estate = Estate::default();
            for row in &held {
                let record = rows::record(row).or_else(|error| rows::unreadable(row, &error, now))?;
                estate.add(row, (ends::canceled(&record, now), ends::interrupted(&record, now)))?;
            }
            let reaped = self
                .truth
                .call(async |client: Arc<Client>| nodes::reap(client, (node, beat), MAX_ATTEMPTS, now, &estate).await)
                .await?;
            let (outcome, canceled, failed) = reaped;
            match &*outcome {
                "moved" => return Ok(false),
                "reaped" => {
                    for (end, interrupted) in &estate.ends {
                        let seq = rows::number(end.seq);
                        if canceled.contains(&seq) {
                            ends::announce(end);
                        } else if failed.contains(&seq) {
                            ends::announce(interrupted);
                        }
                    }
                    return Ok(true);
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// Whether there may be anything to adopt. To look does not wait for writes.
    pub(super) async fn has_orphans(&self) -> Result<bool, StoreError> {
        if !lock(&self.lost).is_empty() {
            // Whether they are stored is known behind the writes only.
            return Ok(true);
        }
        let look = |client| nodes::orphans(client, self.me(), Vec::new(), self.unreadable.orphans());
        let rows = self.looks.read(look).await?;
        // Behind as many that cannot be read there may be others.
        let is_full = rows.len() >= nodes::MAX_ORPHANS;
        Ok(rows.iter().filter(|row| self.unreadable.is_for_us(row)).count() > 0 || is_full)
    }

    /// Looks after orphans from now on. What cannot be read is left to others: nobody here could follow it, and once it
    /// has ended its webhook is owed.
    pub(super) async fn adopt(&self) -> Result<Adopted, StoreError> {
        let lost = lock(&self.lost).clone();
        let look = |client| nodes::orphans(client, self.me(), lost.clone(), self.unreadable.orphans());
        let rows = self.truth.call(look).await?;
        let is_full = rows.len() >= nodes::MAX_ORPHANS;
        let ours = rows.iter().filter(|row| self.unreadable.is_for_us(row));
        let orphans: Vec<(i64, String)> = ours.map(|row| (row.get(0), row.get(6))).collect();
        let seqs: Vec<i64> = orphans.iter().map(|(seq, _)| *seq).collect();
        let adopted = if seqs.is_empty() {
            Vec::new()
        } else {
            let adopted = self.truth.call(|client| nodes::adopt(client, self.me(), lost.clone(), seqs.clone())).await;
            adopted.inspect_err(|failure| {
                if failure.unknown {
                    lock(&self.lost).extend(orphans.iter().map(|(_, id)| id.clone()));
                }
            })?
        };
        let taken: HashSet<i64> = adopted.iter().map(|row| row.get(0)).collect();
        let (taken, left): (Vec<_>, Vec<_>) = orphans.into_iter().partition(|(seq, _)| taken.contains(seq));
        // What was taken is not to be taken again with the next part, and what others have locked stays lost.
        let mut found: HashSet<String> = taken.into_iter().map(|(_, id)| id).collect();
        if !is_full {
            found.extend(lost.into_iter().filter(|id| !left.iter().any(|(_, left)| left == id)));
        }
        lock(&self.lost).retain(|id| !found.contains(id));
        Ok(Adopted { records: self.unreadable.records(&adopted), more: is_full || !left.is_empty() })
    }

    pub(super) async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let Some(row) = self.truth.call(|client| writes::find(client, id)).await? else { return Ok(false) };
        let removable = match rows::record(&row) {
            Ok(Record { prediction, .. }) => prediction.status.is_terminal(),
            Err(_) => true,
        };
        if removable {
            self.truth.call(|client| writes::remove(client, row.get(0))).await?;
        }
        Ok(removable)
    }
}
