//! Nodes: who is alive, what a dead one leaves behind, and who looks after that.

use std::sync::Arc;

use super::{Job, Jobs};
use crate::store::record::Record;
use crate::store::work::{About, Awaited, Claim, News, Node, Peer, Said};
use crate::time::Time;

impl Jobs {
    /// Registers a node.
    pub(in crate::store) fn register(&mut self) -> Node {
        self.last_node += 1;
        let peer = Peer { node: self.last_node, beat: 0, about: About::default() };
        self.nodes.insert(self.last_node, peer);
        self.last_node
    }

    /// A node says that it is alive, and how far its jobs have come; false if it is not known.
    pub(in crate::store) fn beat(&mut self, node: Node, about: &About, said: Vec<Said>) -> bool {
        let Some(peer) = self.nodes.get_mut(&node) else { return false };
        peer.beat += 1;
        peer.about.clone_from(about);
        for Said { claim, logs, metrics } in said {
            if let Some(held) = self.held(&claim).and_then(|job| job.held.as_mut()) {
                held.logs.push_str(&logs);
                held.metrics = metrics;
            }
        }
        true
    }

    /// The claims of a node, in the order of acceptance.
    pub(in crate::store) fn claims(&self, node: Node) -> Vec<Claim> {
        let held = |(&seq, job): (&u64, &Job)| {
            let held = job.held.as_ref().filter(|held| held.node == node)?;
            Some(Claim { seq, token: held.token })
        };
        self.jobs.iter().filter_map(held).collect()
    }

    pub(in crate::store) fn nodes(&self) -> Vec<Peer> {
        self.nodes.values().cloned().collect()
    }

    /// Takes a node for dead, if its beat still is `beat`. Returns the jobs that wait again, and the ends that are to
    /// be stored, for as long as it takes; until [`Jobs::end`] each of these jobs is ending.
    pub(in crate::store) fn reap(
        &mut self,
        node: Node,
        beat: u64,
        now: Time,
    ) -> Option<(Vec<Arc<Record>>, Vec<Record>)> {
        self.nodes.get(&node).filter(|peer| peer.beat == beat)?;
        self.nodes.remove(&node);
        self.handed_out.remove(&node);
        for keeper in self.jobs.values_mut().map(|job| &mut job.keeper).chain(self.owed.values_mut()) {
            keeper.take_if(|keeper| *keeper == node);
        }
        let (mut back, mut doomed) = (Vec::new(), Vec::new());
        for Claim { seq, .. } in self.claims(node) {
            // What is ending by the dead node's own word is left to that.
            let Some(job) = self.jobs.get_mut(&seq).filter(|job| !job.ending) else { continue };
            job.held = None;
            self.queue.insert(&job.entry);
            match self.settle(seq, now) {
                Some(end) => doomed.push(end),
                None => back.extend(self.jobs.get(&seq).map(|job| Arc::clone(&job.record))),
            }
        }
        Some((back, doomed))
    }

    /// Jobs that nobody looks after, which this node does from now on.
    pub(in crate::store) fn adopt(&mut self, node: Node) -> Vec<Record> {
        if !self.nodes.contains_key(&node) {
            return Vec::new();
        }
        let orphans = self.jobs.values_mut().filter(|job| job.keeper.is_none() && !job.ending);
        orphans
            .map(|job| {
                job.keeper = Some(node);
                (*job.record).clone()
            })
            .collect()
    }

    /// Those of some ended predictions whose webhook nobody delivers, which this node does from now on.
    pub(in crate::store) fn adopt_owed(&mut self, node: Node, owed: &[u64]) -> Vec<u64> {
        if !self.nodes.contains_key(&node) {
            return Vec::new();
        }
        let mut adopt =
            |seq: &u64| self.owed.get_mut(seq).is_some_and(|keeper| keeper.is_none() && keeper.insert(node) == &node);
        owed.iter().copied().filter(|seq| adopt(seq)).collect()
    }

    /// A webhook has yet to be delivered, and nobody does it.
    pub(in crate::store) fn owe(&mut self, seq: u64) {
        self.owed.insert(seq, None);
    }

    /// A webhook is delivered, or its prediction is gone.
    pub(in crate::store) fn pay(&mut self, seq: u64) {
        self.owed.remove(&seq);
    }

    /// What is to stop on a node, and how the awaited jobs stand; what is not a job any more is returned apart.
    pub(in crate::store) fn news(&self, node: Node, of: &[Awaited]) -> (Vec<News>, Vec<Awaited>) {
        let stops = self.claims(node).into_iter().filter(|claim| self.is_stopped(claim.seq)).map(News::Stop);
        let (mut news, mut other): (Vec<_>, Vec<_>) = (stops.collect(), Vec::new());
        for awaited in of {
            let job = self.jobs.get(&awaited.seq).filter(|job| job.record.prediction.id == awaited.id);
            let Some(job) = job else {
                other.push(awaited.clone());
                continue;
            };
            let (seq, attempts) = (awaited.seq, job.record.attempts);
            news.push(match &job.held {
                None => News::Waits { seq, attempts },
                Some(held) => News::Runs {
                    seq,
                    attempts,
                    started_at: job.record.prediction.started_at.unwrap_or(job.record.prediction.created_at),
                    logs: held.logs.get(awaited.read..).unwrap_or_default().to_owned(),
                    metrics: Box::new(held.metrics.clone()),
                },
            });
        }
        (news, other)
    }
}
