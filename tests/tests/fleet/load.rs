//! Clients that ask for predictions until they are accepted, by whichever server answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Database, Receiver, Server};
use tokio::task::JoinHandle;

/// How many of them there are.
const CLIENTS: usize = 4;
/// After this time a test that waits fails.
const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Default)]
struct State {
    /// The servers that are asked.
    doors: Mutex<Vec<String>>,
    /// What was accepted.
    accepted: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// The clients. Every eighth prediction takes half a second.
pub(crate) struct Load {
    state: Arc<State>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(doors: &[&Server], receiver: &Receiver) -> Self {
        let state = Arc::<State>::default();
        *state.doors.lock().unwrap() = doors.iter().map(|door| door.url.clone()).collect();
        let clients = (0..CLIENTS).map(|n| tokio::spawn(ask(n, receiver.url.clone(), Arc::clone(&state)))).collect();
        Self { state, clients }
    }

    /// Asks a server in place of another one from now on.
    pub(crate) fn replace(&self, old: &Server, new: &Server) {
        let mut doors = self.state.doors.lock().unwrap();
        doors.retain(|door| *door != old.url);
        doors.push(new.url.clone());
    }

    fn accepted(&self) -> Vec<String> {
        self.state.accepted.lock().unwrap().clone()
    }

    /// Waits until so and so many more are accepted; all that are.
    pub(crate) async fn goes_on(&self, more: usize) -> Vec<String> {
        let (enough, end) = (self.accepted().len() + more, Instant::now() + TIMEOUT);
        while self.accepted().len() < enough {
            assert!(Instant::now() < end, "no server accepts anything");
            assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client has got a wrong answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.accepted()
    }

    /// Lets every client get its last answer; all that was accepted.
    pub(crate) async fn stop(self) -> Vec<String> {
        self.state.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        self.state.accepted.lock().unwrap().clone()
    }
}

async fn ask(client: usize, hooks: String, state: Arc<State>) {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build().unwrap();
    for n in 0.. {
        let id = format!("c{client}-{n}");
        let prompt = if n % 8 == client { "step=50" } else { "step=1" };
        let body = json!({
            "input": {"prompt": prompt, "num_inference_steps": 10, "width": 512, "seed": n},
            "webhook": format!("{hooks}/{id}"),
            "webhook_events_filter": ["completed"],
        });
        let end = Instant::now() + TIMEOUT;
        for turn in client.. {
            let door = {
                let doors = state.doors.lock().unwrap();
                doors[turn % doors.len()].clone()
            };
            let request = http.put(format!("{door}/predictions/{id}")).header("prefer", "respond-async");
            let answer = request.header("content-type", "application/json").body(body.to_string()).send().await;
            let status = answer.map_or(503, |answer| answer.status().as_u16());
            match status {
                200 | 202 => break,
                // It is away, ends, or has no room: another one, or later.
                429 | 503 => assert!(Instant::now() < end, "nobody accepts {id}"),
                _ => panic!("{id}: {status}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        state.accepted.lock().unwrap().push(id);
        if state.over.load(Ordering::SeqCst) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until all has ended; what the servers say of it, which is the same for all, and what was sent.
pub(crate) async fn all_end(
    ids: &[String],
    servers: &[&Server],
    receiver: &Receiver,
    database: &Database,
) -> Vec<Value> {
    let mut ends = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let end = servers[n % servers.len()].ended(id).await;
        assert_eq!(end["status"], "succeeded", "{end}");
        assert_eq!(servers[(n + 1) % servers.len()].ended(id).await, end, "the same everywhere");
        let path = format!("/{id}");
        let sent = receiver.wait(|sent| sent.iter().any(|sent| sent.path == path)).await;
        for sent in sent.iter().filter(|sent| sent.path == path) {
            assert_eq!((&sent.json["status"], &sent.json["output"]), (&end["status"], &end["output"]), "{id}");
        }
        ends.push(end);
    }
    let rows = database.sql("SELECT count(*), count(DISTINCT id) FROM syncdiffusion.predictions");
    assert_eq!(rows, format!("{0}|{0}\n", ids.len()), "nothing is there that was not accepted, and nothing twice");
    ends
}
