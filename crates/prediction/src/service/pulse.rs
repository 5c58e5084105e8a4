//! The sign of life of this node, and what follows from those of the others: who is dead, what they left, how much they
//! can do. A store of one process uses it, too, to look after what it could not write.
//!
//! It has a thread of its own, and needs nothing of the other threads but their locks, so that a node that is busy is
//! not taken for dead. For the same reason nothing is written between two beats: what follows from them is done beside
//! them, one after the other.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::shared::Shared;
use crate::active::ActivePrediction;
use crate::lifecycle::Phase;
use crate::store::{About, Adopted, Beat, Claim, Node, Outcome, Peer, Said, StoreError, Watch, announce};

/// How often it is given at least.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many beats a lease has at least.
const BEATS: u32 = 6;
/// After how many beats a claim that nobody here knows is given back.
const MAX_UNKNOWN: u32 = 3;

/// What is remembered from beat to beat.
struct Pulse {
    watch: Watch,
    /// How many bytes of logs were said under each claim.
    said: HashMap<Claim, usize>,
    /// The last beat had no answer.
    failed: bool,
    /// How often in a row the store knew a claim that nobody here knows.
    unknown: HashMap<Claim, u32>,
    /// The task that looks after what other nodes have left.
    tending: Option<JoinHandle<()>>,
    /// Whether another is to follow it: there are other nodes, or were since it began.
    is_due: bool,
    /// Whether the last one could not.
    untended: Arc<AtomicBool>,
}

/// Beats once, so that the others are known, and then as long as there is a service.
pub(super) async fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let lease = shared.options.lease;
    shared.store.expect_lease(lease);
    let mut pulse = Pulse {
        watch: Watch::new(lease),
        said: HashMap::new(),
        failed: false,
        unknown: HashMap::new(),
        tending: None,
        // A node may have left between the first look and the first beat.
        is_due: true,
        untended: Arc::default(),
    };
    shared.beat(&mut pulse).await;
    let (runtime, shared) = (Handle::current(), Arc::downgrade(shared));
    let interval = INTERVAL.min(lease / BEATS);
    thread::Builder::new().name("pulse".to_owned()).spawn(move || run(&runtime, &shared, pulse, interval))?;
    Ok(())
}

fn run(runtime: &Handle, shared: &Weak<Shared>, mut pulse: Pulse, interval: Duration) {
    loop {
        thread::sleep(interval);
        let Some(service) = shared.upgrade() else { return };
        runtime.block_on(service.beat(&mut pulse));
    }
}

impl Shared {
    async fn beat(self: &Arc<Self>, pulse: &mut Pulse) {
        let (about, said) = {
            let table = self.table();
            let said = |active: &Arc<ActivePrediction>| {
                let claim = active.phase().claim()?;
                let (logs, metrics) = active.said(pulse.said.get(&claim).copied().unwrap_or(0));
                Some(Said { claim, logs, metrics })
            };
            // Alone, nobody else asks for the progress of what runs here.
            let said: Vec<_> =
                if table.fleet { table.workers.running().filter_map(said).collect() } else { Vec::new() };
            (table.about(), said)
        };
        match self.store.beat(&about, said.clone()).await {
            Ok(Beat::Alive { node, held, nodes, last, .. }) => {
                if std::mem::take(&mut pulse.failed) {
                    tracing::info!("the store answers again");
                    self.look_for_orphans();
                }
                pulse.said.retain(|claim, _| said.iter().any(|said| said.claim == *claim));
                for said in said {
                    *pulse.said.entry(said.claim).or_default() += said.logs.len();
                }
                self.look_after(pulse, &held);
                if self.table().wants(false).is_some() {
                    // A store may have put off a claim.
                    self.wake();
                }
                let dead = pulse.watch.look(Instant::now(), &nodes);
                self.meet(node, &nodes, &dead, last.map(|last| *last));
                let has_others = nodes.len() > 1 || pulse.watch.buried();
                pulse.is_due |= has_others;
                // Who is dead now is so at the next beat, too.
                if pulse.tending.as_ref().is_none_or(JoinHandle::is_finished) {
                    let unsure = self.unsure.swap(false, Ordering::Relaxed);
                    // Once more when the last of the others is gone: nobody else looks after what it has left.
                    if std::mem::replace(&mut pulse.is_due, has_others) || unsure {
                        let (shared, untended) = (Arc::clone(self), Arc::clone(&pulse.untended));
                        let adopts = unsure || self.table().adopts();
                        pulse.tending = Some(tokio::spawn(async move { shared.tend(dead, adopts, &untended).await }));
                    }
                }
            }
            Ok(Beat::Dead) => {
                tracing::warn!("this server was taken for dead; it continues under a new name");
                pulse.said.clear();
                self.look_for_orphans();
                self.drop_held();
            }
            Err(error) => {
                if !std::mem::replace(&mut pulse.failed, true) {
                    tracing::error!(%error, "the store does not answer");
                }
            }
        }
    }

    /// Has what nobody looks after be looked for after the next beat, unless that is others' to do.
    fn look_for_orphans(&self) {
        if self.table().adopts() {
            self.unsure.store(true, Ordering::Relaxed);
        }
    }

    /// Takes in what the other nodes say of themselves that are not `dead`.
    fn meet(&self, node: Node, nodes: &[Peer], dead: &[(Node, u64)], last: Option<About>) {
        let is_dead = |peer: &Peer| dead.iter().any(|(dead, _)| *dead == peer.node);
        let others = nodes.iter().filter(|peer| peer.node != node && !is_dead(peer));
        self.table().meet(others.map(|peer| peer.about.clone()).collect(), last);
    }

    /// Takes from dead nodes what they held and, if it `adopts`, looks from now on after what nobody looks after. What
    /// cannot be done is tried again after the next beat, and said once.
    async fn tend(self: Arc<Self>, dead: Vec<(Node, u64)>, adopts: bool, untended: &AtomicBool) {
        let tended = async {
            for (node, beat) in dead {
                self.bury(node, beat).await?;
            }
            if adopts { self.take_over().await } else { Ok(()) }
        };
        let failed = tended.await.err();
        let was_untended = untended.swap(failed.is_some(), Ordering::Relaxed);
        if let Some(error) = failed {
            if adopts {
                self.unsure.store(true, Ordering::Relaxed);
            }
            if !was_untended {
                tracing::error!(%error, "what dead servers left could not be taken over; trying again");
            }
        }
    }

    /// A node is dead: what it held waits again.
    async fn bury(&self, dead: Node, beat: u64) -> Result<(), StoreError> {
        if self.store.reap(dead, beat).await? {
            tracing::warn!(node = dead, "a server is dead; what it held waits again");
            self.wake();
        }
        Ok(())
    }

    /// Looks from now on after what nobody looks after.
    pub(super) async fn take_over(self: &Arc<Self>) -> Result<(), StoreError> {
        loop {
            let Adopted { records, more } = self.store.adopt().await?;
            if records.is_empty() {
                // Others are writing it, or none of a part can be read: the next beat comes back to it.
                self.unsure.fetch_or(more, Ordering::Relaxed);
                return Ok(());
            }
            for record in records {
                self.adopt(record);
            }
            self.wake();
            if !more {
                return Ok(());
            }
        }
    }

    /// Gives back what the store says this node holds, and nobody here knows: the answer to its claim was lost, or its
    /// record cannot be read.
    fn look_after(self: &Arc<Self>, pulse: &mut Pulse, held: &[Claim]) {
        let known: Vec<u64> = {
            let table = self.table();
            let known = table.active.values().filter(|active| !active.phase().is_left());
            known.chain(table.workers.running()).map(|active| active.seq()).collect()
        };
        pulse.unknown.retain(|claim, _| held.contains(claim) && !known.contains(&claim.seq));
        for claim in held.iter().filter(|claim| !known.contains(&claim.seq)) {
            let beats = pulse.unknown.entry(*claim).or_default();
            *beats += 1;
            if *beats < MAX_UNKNOWN {
                continue;
            }
            tracing::warn!(
                seq = claim.seq,
                "this server holds a prediction that it does not know of; it gives it back, or ends it if its record \
                cannot be read"
            );
            let (shared, claim) = (Arc::clone(self), *claim);
            self.tasks.spawn(async move {
                match shared.store.give_back(&claim, false, String::new()).await {
                    Ok(Outcome::Ended(record)) => {
                        announce(&record);
                        // Who waits for it here hears of that by a look.
                        shared.table().doubtful = true;
                        // Nobody may look after its webhook: its record may have been one that cannot be read.
                        shared.look_for_orphans();
                    }
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "a prediction could not be given back to the store"),
                }
            });
        }
    }

    /// Every claim of this node is void: its workers stop what they do, and the store decides what becomes of it.
    fn drop_held(&self) {
        let mut table = self.table();
        // Who took this one for dead is another.
        table.fleet = true;
        for active in table.workers.running() {
            if let Phase::Running { worker, job, .. } = active.phase() {
                table.workers.cancel(worker, job);
            }
        }
    }
}
