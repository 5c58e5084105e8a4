//! Whose turn it is to read an end from the store and to send it: few at a time, because each may hold a picture.
//!
//! What always holds: a receiver, which is a host and its port, has a part of the turns at most, so that one which is
//! silent does not keep the others waiting; and nothing is known of one that nobody sends to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use crate::mutex::lock;

/// How many send at a time.
pub(super) const MAX_AT_ONCE: usize = 64;
/// How many of these send to one host.
pub(super) const MAX_AT_ONE_HOST: usize = MAX_AT_ONCE / 4;

/// A host with its port.
type Host = (String, Option<u16>);

/// The turns of all who send.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    hosts: Mutex<HashMap<Host, Arc<Semaphore>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_AT_ONCE)), hosts: Mutex::default() }
    }
}

/// A turn, or the wait for one. It is over when this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    host: Host,
    /// Held from before the wait until the end.
    of_host: Option<Arc<Semaphore>>,
    permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Turns {
    /// Waits for a turn to send to a URL.
    pub(super) async fn take(&self, url: &str) -> Turn<'_> {
        let host = Url::parse(url).ok().and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default())));
        let host = host.unwrap_or_default();
        let of_host =
            Arc::clone(self.hosts().entry(host.clone()).or_insert_with(|| Arc::new(Semaphore::new(MAX_AT_ONE_HOST))));
        let mut turn = Turn { turns: self, host, of_host: Some(Arc::clone(&of_host)), permits: [None, None] };
        // The other way round, those who wait for a silent host would hold turns of all.
        let permit = of_host.acquire_owned().await.ok();
        turn.permits = [permit, Arc::clone(&self.all).acquire_owned().await.ok()];
        turn
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<Host, Arc<Semaphore>>> {
        lock(&self.hosts)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permits = [None, None];
        self.of_host = None;
        let mut hosts = self.turns.hosts();
        // Whoever else sends there, or waits for it, holds it, too.
        if hosts.get(&self.host).is_some_and(|of_host| Arc::strong_count(of_host) == 1) {
            hosts.remove(&self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn one_host_has_a_part_of_the_turns_and_is_forgotten_after_the_last() {
        let turns = Turns::default();
        let mut held = Vec::new();
        for n in 0..MAX_AT_ONE_HOST {
            held.push(turns.take(&format!("http://silent.example:8000/{n}")).await);
        }
        assert!(timeout(SOON, turns.take("http://silent.example:8000/more")).await.is_err());
        assert!(timeout(SOON, turns.take("http://silent.example:8001/other")).await.is_ok());
        assert!(timeout(SOON, turns.take("not a URL")).await.is_ok());
        for host in 1..MAX_AT_ONCE / MAX_AT_ONE_HOST {
            for _ in 0..MAX_AT_ONE_HOST {
                held.push(turns.take(&format!("http://{host}.example/")).await);
            }
        }
        assert!(timeout(SOON, turns.take("http://last.example/")).await.is_err(), "all are taken");
        assert_eq!(turns.hosts().len(), MAX_AT_ONCE / MAX_AT_ONE_HOST);
        drop(held.remove(0));
        held.push(timeout(SOON, turns.take("http://last.example/")).await.unwrap());
        drop(held);
        assert!(turns.hosts().is_empty());
    }
}
