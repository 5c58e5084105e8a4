//! Random calls by three nodes: every engine answers as `Memory` does, a prediction ends once, and what was asked to
//! stop is canceled.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::store::{About, Beat, Claim, Query, Retention, Stopped};

/// A call. Nodes are numbered; claims are chosen among all that were ever made, so most are void.
#[derive(Clone, Debug)]
enum Call {
    Accept { node: usize, id: usize, tenant: usize, units: f64, idempotent: bool, webhook: bool },
    Claim { node: usize, places: usize, alone: bool },
    Finish { node: usize, claim: Index, recent: bool },
    GiveBack { node: usize, claim: Index, recent: bool, counted: bool },
    Stop { node: usize, id: usize },
    Beat { node: usize },
    DeclareDead { by: usize, peer: Index },
    Adopt { node: usize },
    Deliver { node: usize, id: usize },
    Delete { node: usize, id: usize },
    Sweep { node: usize, count: u64 },
}

const IDS: usize = 6;

fn call() -> impl Strategy<Value = Call> {
    let (node, id) = (0_usize..3, 0..IDS);
    prop_oneof![
        6 => (node.clone(), id.clone(), 0_usize..2, 0.0..9.0, any::<bool>(), any::<bool>()).prop_map(
            |(node, id, tenant, units, idempotent, webhook)| Call::Accept { node, id, tenant, units, idempotent, webhook }
        ),
        5 => (node.clone(), 1_usize..4, any::<bool>()).prop_map(|(node, places, alone)| Call::Claim { node, places, alone }),
        4 => (node.clone(), any::<Index>(), prop::bool::weighted(0.8))
            .prop_map(|(node, claim, recent)| Call::Finish { node, claim, recent }),
        3 => (node.clone(), any::<Index>(), prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(node, claim, recent, counted)| Call::GiveBack { node, claim, recent, counted }),
        2 => (node.clone(), id.clone()).prop_map(|(node, id)| Call::Stop { node, id }),
        2 => node.clone().prop_map(|node| Call::Beat { node }),
        1 => (node.clone(), any::<Index>()).prop_map(|(by, peer)| Call::DeclareDead { by, peer }),
        1 => node.clone().prop_map(|node| Call::Adopt { node }),
        1 => (node.clone(), id.clone()).prop_map(|(node, id)| Call::Deliver { node, id }),
        1 => (node.clone(), id).prop_map(|(node, id)| Call::Delete { node, id }),
        1 => (node, 0_u64..4).prop_map(|(node, count)| Call::Sweep { node, count }),
    ]
}

/// A store, and what was learned of it.
struct Player {
    nodes: Nodes,
    claims: Vec<Claimed>,
    tokens: HashSet<Claim>,
    ended: HashSet<u64>,
    asked: HashSet<u64>,
}

impl Player {
    fn new(engine: Engine) -> Option<Self> {
        let nodes = engine.open(true)?;
        Some(Self { nodes, claims: Vec::new(), tokens: HashSet::new(), ended: HashSet::new(), asked: HashSet::new() })
    }

    fn node(&self, node: usize) -> Arc<dyn Store> {
        Arc::clone([&self.nodes.a, &self.nodes.b, &self.nodes.c][node])
    }

    fn claimed(&self, index: Index, recent: bool) -> Option<Claimed> {
        let from = if recent { self.claims.len().saturating_sub(3) } else { 0 };
        let among = &self.claims[from..];
        (!among.is_empty()).then(|| among[index.index(among.len())].clone())
    }

    /// Notes an end.
    fn end(&mut self, record: &Record) -> String {
        assert!(self.ended.insert(record.seq), "number {} ends twice", record.seq);
        self.check_stop(record);
        format!("{} ends {:?}", record.seq, record.prediction.status)
    }

    fn check_stop(&self, record: &Record) {
        if self.asked.contains(&record.seq) {
            assert_eq!(record.prediction.status, Status::Canceled, "number {} was asked to stop", record.seq);
        }
    }

    fn outcome(&mut self, outcome: Outcome) -> String {
        match outcome {
            Outcome::Ended(record) => self.end(&record),
            other => format!("{other:?}"),
        }
    }

    /// Makes a call; the answer without times and tokens, which differ between engines.
    async fn play(&mut self, call: &Call) -> String {
        match *call {
            Call::Accept { node, id, tenant, units, idempotent, webhook } => {
                let record = if webhook { with_webhook(&id.to_string()) } else { record(&id.to_string()) };
                let tenant = ["", "other"][tenant].to_owned();
                let new = New { tenant, idempotent, ..New::of(record, units) };
                match self.node(node).accept(new, Room { jobs: 4, ..Room::ANY }).await.unwrap() {
                    Accepted::New(seq) => format!("new {seq}"),
                    Accepted::Full(board) => format!("full {}", board.waiting),
                    Accepted::Known(known) => show(&known.record, known.owed),
                }
            }
            Call::Claim { node, places, alone } => {
                let claimed = self.node(node).claim(Wants { alone, ..Wants::any(places) }).await.unwrap();
                assert!(claimed.iter().all(|claimed| self.tokens.insert(claimed.claim)), "a token was used twice");
                let shown =
                    claimed.iter().map(|claimed| format!("{} for the {}. time", claimed.claim.seq, claimed.attempts));
                let shown = shown.collect::<Vec<_>>().join(", ");
                self.claims.extend(claimed);
                shown
            }
            Call::Finish { node, claim, recent } => {
                let Some(claimed) = self.claimed(claim, recent) else { return String::new() };
                let picture = vec![picture(b"png")];
                let outcome = self.node(node).finish(&claimed.claim, succeeded(&claimed), picture).await.unwrap();
                self.outcome(outcome)
            }
            Call::GiveBack { node, claim, recent, counted } => {
                let Some(claimed) = self.claimed(claim, recent) else { return String::new() };
                let outcome = self.node(node).give_back(&claimed.claim, counted, "lost\n".to_owned()).await.unwrap();
                self.outcome(outcome)
            }
            Call::Stop { node, id } => {
                let id = id.to_string();
                match self.node(node).stop(&id).await.unwrap() {
                    Stopped::Ended(record) => self.end(&record),
                    Stopped::Asked => {
                        let seq = self.node(node).get(&id).await.unwrap().unwrap().record.seq;
                        self.asked.insert(seq);
                        format!("{seq} asked")
                    }
                    other => format!("{other:?}"),
                }
            }
            Call::Beat { node } => match self.node(node).beat(&About::default(), Vec::new()).await.unwrap() {
                Beat::Dead => "dead".to_owned(),
                Beat::Alive { node, held, nodes, board, .. } => {
                    let held: Vec<u64> = held.iter().map(|claim| claim.seq).collect();
                    let nodes: Vec<_> = nodes.iter().map(|peer| (peer.node, peer.beat)).collect();
                    format!("{node} {held:?} {nodes:?} {}", board.waiting)
                }
            },
            Call::DeclareDead { by, peer } => {
                let by = self.node(by);
                let Beat::Alive { nodes, .. } = by.beat(&About::default(), Vec::new()).await.unwrap() else {
                    return "dead".to_owned();
                };
                let peer = &nodes[peer.index(nodes.len())];
                format!("{} {:?}", peer.node, by.reap(peer.node, peer.beat).await.unwrap())
            }
            Call::Adopt { node } => {
                let mut seqs: Vec<u64> =
                    self.node(node).adopt().await.unwrap().records.iter().map(|record| record.seq).collect();
                seqs.sort_unstable();
                format!("{seqs:?}")
            }
            Call::Deliver { node, id } => {
                let (node, id) = (self.node(node), id.to_string());
                if let Some(stored) = node.get(&id).await.unwrap() {
                    node.mark_delivered(&id, stored.record.seq).await.unwrap();
                }
                String::new()
            }
            Call::Delete { node, id } => self.node(node).delete(&id.to_string()).await.unwrap().to_string(),
            Call::Sweep { node, count } => {
                let retention = Retention { count: Some(count), ..Retention::default() };
                self.node(node).sweep(retention).await.unwrap().to_string()
            }
        }
    }

    /// Everything that can be read, from a node.
    async fn look(&self, node: usize) -> String {
        let store = self.node(node);
        let mut shown = Vec::new();
        for record in store.list(Query { limit: 100, ..Query::default() }).await.unwrap() {
            let stored = store.get(&record.prediction.id).await.unwrap().expect("it is listed");
            self.check_ended(&stored.record);
            let place = store.place(record.seq).await.unwrap().map(|place| place.before);
            shown.push(format!(
                "{}, listed as {:?}, place {place:?}, picture {}",
                show(&stored.record, stored.owed),
                record.prediction.status,
                stored.picture.is_some()
            ));
        }
        format!("{shown:#?} {}", board(&*store).await.waiting)
    }

    fn check_ended(&self, record: &Record) {
        if record.prediction.status.is_terminal() {
            self.check_stop(record);
        } else {
            assert!(!self.ended.contains(&record.seq), "number {} has ended and goes on", record.seq);
        }
    }
}

fn show(record: &Record, owed: bool) -> String {
    let prediction = &record.prediction;
    format!("{} `{}` {:?} {} {owed}", record.seq, prediction.id, prediction.status, record.attempts)
}

/// Makes the same calls to an engine and to `Memory`.
fn compare(engine: Engine, calls: &[Call]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (Some(mut memory), Some(mut engine)) = (Player::new(Engine::Memory), Player::new(engine)) else { return };
        for (at, call) in calls.iter().enumerate() {
            assert_eq!(engine.play(call).await, memory.play(call).await, "call {at}, {call:?}");
            let node = at % 3;
            assert_eq!(engine.look(node).await, memory.look(node).await, "after call {at}, {call:?}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn sqlite_answers_as_memory_does(calls in prop::collection::vec(call(), 1..80)) {
        compare(Engine::Sqlite, &calls);
    }
}

proptest! {
    // Each makes a database.
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn postgres_answers_as_memory_does(calls in prop::collection::vec(call(), 1..80)) {
        compare(Engine::Postgres, &calls);
    }
}
