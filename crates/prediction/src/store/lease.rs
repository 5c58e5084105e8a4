//! Who is dead. No clocks of machines are compared: a node is dead when another has watched its beat stand still for as
//! long as the lease, by its own monotonic clock, and every look in between was answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::work::{Node, Peer};

/// Watches the beats of other nodes.
#[derive(Debug)]
pub struct Watch {
    lease: Duration,
    seen: HashMap<Node, (u64, Instant)>,
    last: Option<Instant>,
    /// Whether the last look found a death.
    found: bool,
}

impl Watch {
    /// Declares nodes dead after `lease`.
    pub fn new(lease: Duration) -> Self {
        Self { lease, seen: HashMap::new(), last: None, found: false }
    }

    /// Takes in the nodes of an answered beat. Returns those that are dead, with the beat at which they stopped, for
    /// [`super::Store::reap`]. After a gap of more than half the lease, in which this node was frozen or the store did
    /// not answer, watching starts again.
    pub fn look(&mut self, now: Instant, peers: &[Peer]) -> Vec<(Node, u64)> {
        if self.last.replace(now).is_some_and(|last| now.duration_since(last) > self.lease / 2) {
            self.seen.clear();
        }
        self.seen.retain(|node, _| peers.iter().any(|peer| peer.node == *node));
        let mut dead = Vec::new();
        for peer in peers {
            let (beat, since) = *self.seen.entry(peer.node).or_insert((peer.beat, now));
            if beat != peer.beat {
                self.seen.insert(peer.node, (peer.beat, now));
            } else if now.duration_since(since) >= self.lease {
                dead.push((peer.node, beat));
            }
        }
        self.found = !dead.is_empty();
        dead
    }

    /// Whether the last look found a death.
    pub fn buried(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::super::work::About;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peers(beats: &[(Node, u64)]) -> Vec<Peer> {
        beats.iter().map(|&(node, beat)| Peer { node, beat, about: About::default() }).collect()
    }

    #[test]
    fn a_beat_that_stands_still_for_the_lease_is_a_death() {
        let (start, mut watch) = (Instant::now(), Watch::new(3 * SECOND));
        for second in 0..3 {
            assert!(watch.look(start + second * SECOND, &peers(&[(1, u64::from(second)), (2, 7)])).is_empty());
        }
        assert_eq!(watch.look(start + 3 * SECOND, &peers(&[(1, 3), (2, 7)])), [(2, 7)]);
        assert!(watch.look(start + 4 * SECOND, &peers(&[(1, 4), (2, 8)])).is_empty(), "it beats again");
    }

    #[test]
    fn an_outage_or_a_freeze_of_the_watcher_expires_nobody() {
        let (start, mut watch) = (Instant::now(), Watch::new(3 * SECOND));
        watch.look(start, &peers(&[(2, 7)]));
        assert!(watch.look(start + 60 * SECOND, &peers(&[(2, 7)])).is_empty());
        assert!(watch.look(start + 61 * SECOND, &peers(&[(2, 7)])).is_empty());
        assert!(watch.look(start + 62 * SECOND, &peers(&[(2, 7)])).is_empty());
        assert_eq!(watch.look(start + 63 * SECOND, &peers(&[(2, 7)])), [(2, 7)]);
    }
}
