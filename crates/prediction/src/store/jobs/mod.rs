//! Every prediction that has not ended: what waits, who holds what, which nodes there are. Pure state, in memory; the
//! engines keep the truth beside it and call it in the order of their writes.
//!
//! What always holds: a job waits (it is in the queue), is held by a living node under one token, or is ending (its end
//! is being stored, and nothing else happens to it).

mod nodes;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use crate::store::ends;
use crate::store::queue::{Entry, Queue, Turn};
use crate::store::record::Record;
use crate::store::work::{Board, Claim, Claimed, MAX_ATTEMPTS, Node, Peer, Place, Room, Wants};
use crate::time::Time;
use crate::wire::{Metrics, Status};

/// The jobs of a store.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    queue: Queue,
    jobs: BTreeMap<u64, Job>,
    ids: HashMap<String, u64>,
    /// Ended predictions whose webhook has yet to be delivered, and who looks after that.
    owed: BTreeMap<u64, Option<Node>>,
    nodes: BTreeMap<Node, Peer>,
    /// How many claims each node was ever given.
    handed_out: BTreeMap<Node, u64>,
    last_seq: u64,
    last_node: Node,
}

#[derive(Debug)]
struct Job {
    /// As it is now: status, start and attempts included.
    record: Arc<Record>,
    entry: Entry,
    wire: u32,
    /// Who looks after its deadline and webhook.
    keeper: Option<Node>,
    /// How many wishes to stop it are stored.
    stops: u32,
    /// Its end is being stored.
    ending: bool,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    node: Node,
    token: Uuid,
    logs: String,
    metrics: Metrics,
}

/// What is needed to make a job of a stored record.
pub(super) struct Opened {
    pub(super) record: Record,
    pub(super) tenant: String,
    pub(super) units: f64,
    pub(super) rank: Option<f64>,
    pub(super) wire: u32,
    pub(super) stop: bool,
}

/// What giving a job back makes of it.
#[derive(Debug)]
pub(super) enum Back {
    Fenced,
    /// It waits with these attempts.
    Waits(Arc<Record>),
    /// It was asked to stop: its end is to be stored, and then [`Jobs::end`] or [`Jobs::keep`] called.
    Ends(Box<Record>),
}

/// What stopping a prediction takes.
#[derive(Debug)]
pub(super) enum Stopping {
    /// No job has this id.
    Unknown,
    TooLate,
    /// It waited: its end is to be stored, and then [`Jobs::end`] or [`Jobs::keep`] called.
    Ends(Box<Record>),
    /// It runs: the wish is to be stored, and [`Jobs::ask`] called.
    Asks(u64),
}

impl Jobs {
    /// Raises the last number to one that is stored.
    pub(super) fn seen(&mut self, seq: u64) {
        self.last_seq = self.last_seq.max(seq);
    }

    pub(super) fn board(&self) -> Board {
        self.queue.board()
    }

    /// Whether there is room for one more prediction that a node accepts.
    pub(super) fn admits(&self, node: Node, room: &Room) -> bool {
        let since = self.handed_out.get(&node).map_or(0, |handed_out| handed_out.saturating_sub(room.claims));
        room.after(since).admits(self.board())
    }

    /// The record of a job as it is now.
    pub(super) fn record(&self, seq: u64) -> Option<&Record> {
        self.jobs.get(&seq).map(|job| &*job.record)
    }

    /// The name of the token that asked for a job.
    pub(super) fn tenant(&self, seq: u64) -> Option<&str> {
        self.jobs.get(&seq).map(|job| &*job.entry.tenant)
    }

    pub(super) fn find(&self, id: &str) -> Option<u64> {
        self.ids.get(id).copied()
    }

    /// All of them, in the order of acceptance.
    pub(super) fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.jobs.values().map(|job| &*job.record)
    }

    /// Takes a number and a place in the queue for a new prediction, if there is room.
    pub(super) fn reserve(&mut self, node: Node, tenant: &str, units: f64, room: &Room) -> Result<Entry, Board> {
        if !self.admits(node, room) {
            return Err(self.board());
        }
        self.last_seq += 1;
        Ok(self.queue.reserve(self.last_seq, tenant, units))
    }

    /// A reserved prediction is stored: it may be claimed.
    pub(super) fn admit(&mut self, entry: Entry, record: Record, wire: u32, node: Node) {
        let keeper = self.nodes.contains_key(&node).then_some(node);
        self.queue.confirm(&entry);
        self.add(Job { record: Arc::new(record), entry, wire, keeper, stops: 0, ending: false, held: None });
    }

    /// A reserved prediction could not be stored.
    pub(super) fn withdraw(&mut self, entry: &Entry) {
        self.queue.remove(entry);
    }

    /// Takes up what a store holds unfinished, as reaping its last process leaves it. Returns the ends that are to be
    /// stored, for as long as it takes; until [`Jobs::end`] each of these jobs is ending.
    pub(super) fn open(&mut self, mut found: Vec<Opened>, now: Time) -> Vec<Record> {
        // What has no rank yet comes after what has, in the order of acceptance.
        found.sort_by(|a, b| {
            let rank = |opened: &Opened| opened.rank.unwrap_or(f64::INFINITY);
            rank(a).total_cmp(&rank(b)).then(a.record.seq.cmp(&b.record.seq))
        });
        let mut doomed = Vec::new();
        for Opened { record, tenant, units, rank, wire, stop } in found {
            self.seen(record.seq);
            let mut entry = self.queue.reserve(record.seq, &tenant, units);
            if let Some(rank) = rank {
                self.queue.remove(&entry);
                entry.turn = Turn { rank, ..entry.turn };
                self.queue.insert(&entry);
            } else {
                self.queue.confirm(&entry);
            }
            let seq = record.seq;
            self.add(Job {
                record: Arc::new(record),
                entry,
                wire,
                keeper: None,
                stops: stop.into(),
                ending: false,
                held: None,
            });
            doomed.extend(self.settle(seq, now));
        }
        doomed
    }

    fn add(&mut self, job: Job) {
        let seq = job.entry.turn.seq;
        self.ids.insert(job.record.prediction.id.clone(), seq);
        self.jobs.insert(seq, job);
    }

    /// Claims for a node what comes next.
    pub(super) fn claim(&mut self, node: Node, wants: &Wants, now: Time) -> Vec<Claimed> {
        if !self.nodes.contains_key(&node) {
            return Vec::new();
        }
        let mut chosen = Vec::new();
        for seq in self.queue.order() {
            if chosen.len() >= wants.places {
                break;
            }
            let Some(job) = self.jobs.get(&seq) else { continue };
            if job.wire > wants.wire
                || job.entry.units > wants.units
                || !wants.takes(&job.record)
                || now.since(job.record.prediction.created_at) < wants.waited.as_secs_f64()
            {
                continue;
            }
            if job.record.attempts > 0 {
                // It runs alone, and nothing passes it.
                if wants.alone && chosen.is_empty() {
                    chosen.push(seq);
                }
                break;
            }
            chosen.push(seq);
        }
        let claimed: Vec<_> = chosen.into_iter().filter_map(|seq| self.hold(seq, node, now)).collect();
        *self.handed_out.entry(node).or_default() += claimed.len() as u64;
        claimed
    }

    fn hold(&mut self, seq: u64, node: Node, now: Time) -> Option<Claimed> {
        let job = self.jobs.get_mut(&seq)?;
        self.queue.claim(&job.entry);
        let record = Arc::make_mut(&mut job.record);
        record.attempts += 1;
        record.prediction.status = Status::Processing;
        record.prediction.started_at = Some(now);
        let claim = Claim { seq, token: Uuid::new_v4() };
        job.held = Some(Held { node, token: claim.token, logs: String::new(), metrics: Metrics::default() });
        Some(Claimed {
            claim,
            record: Arc::clone(&job.record),
            attempts: job.record.attempts,
            started_at: now,
            units: job.entry.units,
            tenant: job.entry.tenant.to_string(),
        })
    }

    fn held(&mut self, claim: &Claim) -> Option<&mut Job> {
        let job = self.jobs.get_mut(&claim.seq).filter(|job| !job.ending)?;
        job.held.as_ref().is_some_and(|held| held.token == claim.token).then_some(job)
    }

    /// Begins to end a held job; false if the claim does not hold. [`Jobs::end`] or [`Jobs::keep`] follows.
    pub(super) fn begin_end(&mut self, claim: &Claim) -> bool {
        self.held(claim).is_some_and(|job| {
            job.ending = true;
            true
        })
    }

    /// Whether a job was asked to stop.
    pub(super) fn is_stopped(&self, seq: u64) -> bool {
        self.jobs.get(&seq).is_some_and(|job| job.stops > 0)
    }

    /// The end of a job is stored, and owes its webhook or not.
    pub(super) fn end(&mut self, seq: u64, owed: bool) {
        let Some(job) = self.jobs.remove(&seq) else { return };
        self.queue.remove(&job.entry);
        self.ids.remove(&job.record.prediction.id);
        if owed {
            self.owed.insert(seq, job.keeper.filter(|keeper| self.nodes.contains_key(keeper)));
        }
    }

    /// The end of a job could not be stored: it is held or waits as before.
    pub(super) fn keep(&mut self, seq: u64) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        job.ending = false;
        // A node that was taken for dead meanwhile does not try again.
        if job.held.as_ref().is_none_or(|held| !self.nodes.contains_key(&held.node)) {
            job.wait();
            self.queue.insert(&job.entry);
        }
    }

    /// Gives a held job back.
    pub(super) fn give_back(&mut self, claim: &Claim, counted: bool, logs: String, now: Time) -> Back {
        let Some(job) = self.held(claim) else { return Back::Fenced };
        if job.stops > 0 {
            job.ending = true;
            let mut end = ends::canceled(&job.record, now);
            end.prediction.logs = logs;
            return Back::Ends(Box::new(end));
        }
        let record = Arc::make_mut(&mut job.record);
        record.prediction.logs = logs;
        if !counted {
            record.attempts = record.attempts.saturating_sub(1);
        }
        job.wait();
        let (record, entry) = (Arc::clone(&job.record), job.entry.clone());
        self.queue.insert(&entry);
        Back::Waits(record)
    }

    /// Begins to stop the prediction of an id, if it has that number or none is named.
    pub(super) fn stop(&mut self, id: &str, seq: Option<u64>, now: Time) -> Stopping {
        let Some(job) = self.ids.get(id).and_then(|seq| self.jobs.get_mut(seq)) else { return Stopping::Unknown };
        if job.ending || seq.is_some_and(|seq| seq != job.entry.turn.seq) {
            return Stopping::TooLate;
        }
        if job.held.is_some() {
            return Stopping::Asks(job.entry.turn.seq);
        }
        job.ending = true;
        self.queue.remove(&job.entry);
        Stopping::Ends(Box::new(ends::canceled(&job.record, now)))
    }

    /// A wish to stop a job is stored.
    pub(super) fn ask(&mut self, seq: u64) {
        if let Some(job) = self.jobs.get_mut(&seq) {
            job.stops += 1;
        }
    }

    /// A wish to stop a job is not stored after all.
    pub(super) fn unask(&mut self, seq: u64) {
        if let Some(job) = self.jobs.get_mut(&seq) {
            job.stops -= 1;
        }
    }

    /// Decides about a job that was interrupted and is in the queue: it waits on, or its end is returned.
    fn settle(&mut self, seq: u64, now: Time) -> Option<Record> {
        let job = self.jobs.get_mut(&seq)?;
        let end = if job.stops > 0 {
            ends::canceled(&job.record, now)
        } else if job.record.attempts >= MAX_ATTEMPTS {
            ends::interrupted(&job.record, now)
        } else {
            job.wait();
            return None;
        };
        job.ending = true;
        self.queue.remove(&job.entry);
        Some(end)
    }

    /// Where a job stands in the queue.
    pub(super) fn place(&self, seq: u64) -> Option<Place> {
        let job = self.jobs.get(&seq).filter(|job| job.held.is_none() && !job.ending)?;
        Some(self.queue.place(job.entry.turn))
    }
}

impl Job {
    /// Lets it wait again.
    fn wait(&mut self) {
        self.held = None;
        let record = Arc::make_mut(&mut self.record);
        record.prediction.status = Status::Starting;
        record.prediction.started_at = None;
        record.prediction.metrics = Metrics::default();
    }
}
