//! The order of the queue, and how much is in it. Pure: no disk, no clock.
//!
//! The order is start-time fair queueing with one number, as in self-clocked fair queueing (Golestani, 1994): a
//! tenant's next prediction is ranked its own cost behind the tenant's last one that waits, or behind what was claimed
//! last if none does. One tenant is first in, first out; several share the workers by cost.
//!
//! What always holds: within a tenant, ranks grow in the order in which they were reserved; sums are those of what is
//! there.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::work::{Board, Place};

/// The least cost that counts, so that every rank is greater than the one before it.
const MIN_UNITS: f64 = 1e-3;

/// The rank of a prediction: `low` is the greatest rank that was claimed, `last` the greatest of its tenant that waits.
pub(super) fn rank(low: f64, last: Option<f64>, units: f64) -> f64 {
    last.map_or(low, |last| last.max(low)) + units.max(MIN_UNITS)
}

/// A position in the queue: by rank, then by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) rank: f64,
    pub(super) seq: u64,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.total_cmp(&other.rank).then(self.seq.cmp(&other.seq))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}

/// A prediction in the queue.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) turn: Turn,
    pub(super) tenant: Arc<str>,
    pub(super) units: f64,
}

/// What waits, and what is about to: a reserved entry counts and has its rank, but is not claimed until it is
/// confirmed.
#[derive(Debug, Default)]
pub(super) struct Queue {
    line: BTreeMap<Turn, f64>,
    tenants: HashMap<Arc<str>, BTreeSet<Turn>>,
    low: f64,
    waiting: u64,
    units: f64,
}

impl Queue {
    /// Takes the place of a new prediction.
    pub(super) fn reserve(&mut self, seq: u64, tenant: &str, units: f64) -> Entry {
        let last = self.tenants.get(tenant).and_then(BTreeSet::last).map(|turn| turn.rank);
        let tenant = self.tenants.get_key_value(tenant).map_or_else(|| tenant.into(), |(tenant, _)| Arc::clone(tenant));
        let entry = Entry { turn: Turn { rank: rank(self.low, last, units), seq }, tenant, units };
        self.count(&entry);
        entry
    }

    /// Lets a reserved entry be claimed.
    pub(super) fn confirm(&mut self, entry: &Entry) {
        self.line.insert(entry.turn, entry.units);
    }

    /// Puts back what was claimed or withdrawn, at its old rank.
    pub(super) fn insert(&mut self, entry: &Entry) {
        self.count(entry);
        self.confirm(entry);
    }

    /// Removes an entry that waits or is reserved.
    pub(super) fn remove(&mut self, entry: &Entry) {
        self.line.remove(&entry.turn);
        let Some(turns) = self.tenants.get_mut(&entry.tenant) else { return };
        if !turns.remove(&entry.turn) {
            return;
        }
        if turns.is_empty() {
            self.tenants.remove(&entry.tenant);
        }
        self.waiting -= 1;
        // An empty sum is exact again.
        self.units = if self.waiting == 0 { 0.0 } else { self.units - entry.units };
    }

    /// Removes an entry because it is claimed: new ones of idle tenants are ranked behind it.
    pub(super) fn claim(&mut self, entry: &Entry) {
        self.remove(entry);
        self.low = self.low.max(entry.turn.rank);
    }

    /// Numbers in the order in which they are to be claimed.
    pub(super) fn order(&self) -> impl Iterator<Item = u64> {
        self.line.keys().map(|turn| turn.seq)
    }

    /// What comes before an entry.
    pub(super) fn place(&self, turn: Turn) -> Place {
        let before = self.line.range(..turn);
        before
            .fold(Place::default(), |place, (_, units)| Place { before: place.before + 1, units: place.units + units })
    }

    /// How much waits.
    pub(super) fn board(&self) -> Board {
        Board { waiting: self.waiting, units: self.units }
    }

    fn count(&mut self, entry: &Entry) {
        self.tenants.entry(Arc::clone(&entry.tenant)).or_default().insert(entry.turn);
        self.waiting += 1;
        self.units += entry.units;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::work::Room;
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Reserve { tenant: usize, units: f64, confirm: bool },
        Claim,
        Remove(prop::sample::Index),
        Back,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..3, 0.0..100.0, prop::bool::weighted(0.9))
                .prop_map(|(tenant, units, confirm)| Step::Reserve { tenant, units, confirm }),
            2 => Just(Step::Claim),
            1 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => Just(Step::Back),
        ]
    }

    proptest! {
        #[test]
        fn sums_hold_and_tenants_are_served_in_order(steps in prop::collection::vec(step(), 1..200)) {
            let mut queue = Queue::default();
            let (mut waiting, mut claimed) = (Vec::<Entry>::new(), Vec::<Entry>::new());
            for (seq, step) in (1..).zip(steps) {
                match step {
                    Step::Reserve { tenant, units, confirm } => {
                        let entry = queue.reserve(seq, ["", "a", "b"][tenant], units);
                        if confirm {
                            queue.confirm(&entry);
                            waiting.push(entry);
                        } else {
                            queue.remove(&entry);
                        }
                    }
                    Step::Claim => {
                        let Some(seq) = queue.order().next() else { continue };
                        let at = waiting.iter().position(|entry| entry.turn.seq == seq).unwrap();
                        let entry = waiting.remove(at);
                        let older = |other: &Entry| other.tenant == entry.tenant && other.turn.seq < entry.turn.seq;
                        prop_assert!(!waiting.iter().any(older), "first in, first out within a tenant");
                        queue.claim(&entry);
                        claimed.push(entry);
                    }
                    Step::Remove(index) if !waiting.is_empty() => {
                        let entry = waiting.remove(index.index(waiting.len()));
                        queue.remove(&entry);
                    }
                    Step::Back => {
                        let Some(entry) = claimed.pop() else { continue };
                        queue.insert(&entry);
                        waiting.push(entry);
                    }
                    Step::Remove(_) => {}
                }
                waiting.sort_by_key(|entry| entry.turn);
                let order: Vec<_> = waiting.iter().map(|entry| entry.turn.seq).collect();
                prop_assert_eq!(queue.order().collect::<Vec<_>>(), order);
                let sum: f64 = waiting.iter().map(|entry| entry.units).sum();
                prop_assert_eq!(queue.board().waiting, waiting.len() as u64);
                prop_assert!((queue.board().units - sum).abs() < 1e-6);
                for (before, entry) in (0..).zip(&waiting) {
                    prop_assert_eq!(queue.place(entry.turn).before, before);
                }
            }
        }

        #[test]
        fn tenants_share_by_cost(costs in prop::collection::vec(1.0_f64..10.0, 50)) {
            let mut queue = Queue::default();
            let mut entries = HashMap::new();
            for (seq, &units) in (1..).zip(costs.iter().chain(&costs)) {
                let tenant = if seq <= costs.len() as u64 { "a" } else { "b" };
                let entry = queue.reserve(seq, tenant, units);
                queue.confirm(&entry);
                entries.insert(seq, entry);
            }
            let mut served = HashMap::from([("a", 0.0), ("b", 0.0)]);
            for _ in 0..costs.len() {
                let seq = queue.order().next().unwrap();
                queue.claim(&entries[&seq]);
                *served.get_mut(&*entries[&seq].tenant).unwrap() += entries[&seq].units;
                prop_assert!((served["a"] - served["b"]).abs() <= 20.0, "{served:?}");
            }
        }
    }

    #[test]
    fn a_small_job_does_not_wait_behind_another_tenants_thousand() {
        let mut queue = Queue::default();
        for seq in 1..=1000 {
            let entry = queue.reserve(seq, "a", 100.0);
            queue.confirm(&entry);
        }
        let small = queue.reserve(1001, "b", 1.0);
        queue.confirm(&small);
        assert_eq!(queue.order().next(), Some(1001));
    }

    #[test]
    fn room_is_what_its_limits_say() {
        let room = Room { free: 1, jobs: 3, units: 10.0, claims: 0 };
        let board = |waiting, units| Board { waiting, units };
        assert!(room.admits(board(0, 1000.0)), "one that starts at once needs no room in the queue");
        assert!(room.admits(board(1, 10.0)) && !room.admits(board(1, 10.1)));
        assert!(!room.admits(board(3, 0.0)));
        assert!(!room.after(1).admits(board(0, 10.1)) && !room.after(3).admits(board(0, 0.0)));
        assert!(Room::ANY.admits(board(1 << 40, 1e30)));
    }
}
