//! How work is accepted, claimed and handed back: what callers and engines say to each other about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::Model;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{Picture, Record, Stored};
use crate::time::Time;
use crate::wire::Metrics;

/// How often a prediction is attempted before it is given up: one that has lost its worker this often fails.
pub const MAX_ATTEMPTS: u32 = 2;
/// The newest form of a record that this program reads: [`New::wire`]. In form 2 pictures that were given may lie in a
/// bucket.
pub(super) const WIRE: u32 = OBJECTS_WIRE;
/// The form of a record whose pictures lie in a bucket.
pub(super) const OBJECTS_WIRE: u32 = 2;

/// A prediction to accept.
#[derive(Clone, Debug)]
pub struct New {
    /// Its record; `seq` and `attempts` are the store's to set.
    pub record: Record,
    /// Its cost, see [`crate::cost::units`].
    pub units: f64,
    /// Name of the token that asked for it; names share the workers by cost. Empty where tokens have no names.
    pub tenant: String,
    /// Version of the record's form; a node claims what it can read.
    pub wire: u32,
    /// `Idempotency-Key` of the request. A second request of the same tenant with the same key finds the first one's
    /// prediction.
    pub key: Option<String>,
    /// Whether an id that has ended is found instead of used again.
    pub idempotent: bool,
    /// Pictures that came with the request.
    pub inputs: Vec<Picture>,
}

impl New {
    /// A prediction of a record alone, which costs `units`.
    pub fn of(record: Record, units: f64) -> Self {
        Self { record, units, tenant: String::new(), wire: 1, key: None, idempotent: false, inputs: Vec::new() }
    }
}

/// How much may wait for one more to be accepted. The store compares it with its [`Board`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// How many could be started at once: below this number neither limit applies but `jobs`.
    pub free: u64,
    /// Fewer than this many wait.
    pub jobs: u64,
    /// At most this cost waits.
    pub units: f64,
    /// How many claims this node had received when it counted `free`. What it was given since then is taken off.
    pub claims: u64,
}

impl Room {
    /// No limits.
    pub const ANY: Self = Self { free: u64::MAX, jobs: u64::MAX, units: f64::INFINITY, claims: u64::MAX };

    /// What is left of it when this node has received more claims.
    #[must_use]
    pub fn after(self, claims: u64) -> Self {
        Self { free: self.free.saturating_sub(claims), jobs: self.jobs.saturating_sub(claims), ..self }
    }

    /// Whether one more may wait.
    pub fn admits(&self, board: Board) -> bool {
        board.waiting < self.jobs && (board.waiting < self.free || board.units <= self.units)
    }
}

/// How much waits, what is being stored included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Board {
    /// How many predictions.
    pub waiting: u64,
    /// Their cost.
    pub units: f64,
}

/// What came of asking to accept a prediction.
#[derive(Clone, Debug)]
pub enum Accepted {
    /// It is stored under this number and waits.
    New(u64),
    /// There is one of this id or key: it has not ended, or it has and `idempotent` was set, the key found it, or its
    /// webhook has yet to be delivered ([`Stored::owed`]) and would be lost.
    Known(Box<Stored>),
    /// There is no [`Room`].
    Full(Board),
}

/// The right to end a prediction: whoever holds it, and nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The number of the prediction.
    pub seq: u64,
    /// Random, and another one for each claim.
    pub token: Uuid,
}

/// What a node wants to claim.
#[derive(Clone, Debug)]
pub struct Wants {
    /// The greatest number of predictions.
    pub places: usize,
    /// Whether one that lost a worker before may be among them: it runs on a worker that holds nothing else, and is
    /// claimed alone. If it may not, nothing behind it in the queue is claimed either, or it would wait for ever.
    pub alone: bool,
    /// Only what has waited this long, so that idle nodes come first.
    pub waited: Duration,
    /// Only records of this form or an earlier one.
    pub wire: u32,
    /// Only what costs at most this.
    pub units: f64,
    /// Only what was accepted for this version of a model, or before any was known.
    pub version: Option<String>,
}

impl Wants {
    /// Whatever comes next.
    pub fn any(places: usize) -> Self {
        Self { places, alone: true, waited: Duration::ZERO, wire: WIRE, units: f64::INFINITY, version: None }
    }

    /// Whether a record is of a version that is wanted.
    pub(super) fn takes(&self, record: &Record) -> bool {
        let (wanted, accepted) = (self.version.as_deref(), record.prediction.version.as_deref());
        wanted.is_none() || accepted.is_none() || wanted == accepted
    }
}

/// A prediction that was claimed.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// To be named in everything that is said of it from now on.
    pub claim: Claim,
    /// As it was accepted, with the logs of earlier attempts.
    pub record: Arc<Record>,
    /// Which attempt this is, from 1.
    pub attempts: u32,
    /// When it was claimed: the start of the prediction.
    pub started_at: Time,
    /// Its cost.
    pub units: f64,
    /// Name of the token that asked for it.
    pub tenant: String,
}

/// What came of finishing a prediction or giving it back.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has ended, and this is stored: canceled, if it was asked to stop, whatever came of it.
    Ended(Box<Record>),
    /// It waits again, in front of what came after it.
    Waits,
    /// The claim does not hold any more: another node may be at it, or its end is stored. Drop it and report nothing.
    Fenced,
}

/// What came of asking a prediction to stop.
#[derive(Clone, Debug, PartialEq)]
pub enum Stopped {
    /// It waited. It has ended as canceled, and this is stored.
    Ended(Box<Record>),
    /// It runs, and whoever runs it finds the wish in its [`News`]. However it ends now, it is stored as canceled.
    Asked,
    /// It has ended, or its end is being stored.
    TooLate,
    /// There is no such prediction.
    Unknown,
}

/// What a node has adopted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adopted {
    /// It looks after these from now on. They may be fewer than it has taken: some may not be readable.
    pub records: Vec<Record>,
    /// Nobody may look after others yet: more than are taken at a time, or those that others were writing.
    pub more: bool,
}

/// Where a prediction stands in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// How many start before it.
    pub before: u64,
    /// Their cost.
    pub units: f64,
}

/// Names a node: one opening of a store by one process. Never used again.
pub type Node = u64;

/// No node has this number.
pub(super) const NOBODY: Node = 0;

/// What a node says of itself with each beat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Version of the program.
    pub version: String,
    /// The model it serves; `None` on a node without workers.
    pub model: Option<Model>,
    /// What its model cannot be used with, and why: schedulers by name, and `image` if it has no encoder.
    pub unusable: BTreeMap<String, String>,
    /// How many workers it has, in whatever state; `None` if its program does not say it.
    pub workers: Option<u64>,
    /// How many workers are ready.
    pub ready: u64,
    /// How many predictions it could start at once.
    pub free: u64,
    /// Cost that it gets through in a second, once it has measured that.
    pub units_per_second: Option<f64>,
}

impl About {
    /// Whether it has a worker that is ready.
    pub fn draws(&self) -> bool {
        self.ready > 0 && self.model.is_some()
    }

    /// What outlives a node: its model and its speed, without what it could do at once.
    pub(super) fn lasting(&self) -> Self {
        Self { workers: None, ready: 0, free: 0, ..self.clone() }
    }

    /// Whether it tells of another model than what is remembered, or of quite another speed.
    pub(super) fn differs(&self, remembered: &Self) -> bool {
        let is_as_fast = match (self.units_per_second, remembered.units_per_second) {
            (Some(new), Some(old)) => new < 1.25 * old && old < 1.25 * new,
            (new, _) => new.is_none(),
        };
        !is_as_fast || (&self.model, &self.unusable) != (&remembered.model, &remembered.unusable)
    }
}

/// How far a prediction has come, said by the node that holds it. Lost in a crash.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whose progress.
    pub claim: Claim,
    /// Logs since it was last said.
    pub logs: String,
    /// Metrics now.
    pub metrics: Metrics,
}

/// The answer to a beat.
#[derive(Clone, Debug, PartialEq)]
pub enum Beat {
    /// The node is known.
    Alive {
        /// Its name.
        node: Node,
        /// What it holds, as the store has it.
        held: Vec<Claim>,
        /// All nodes, this one included.
        nodes: Vec<Peer>,
        /// How much waits.
        board: Board,
        /// What the newest node with a ready worker said last, whether it still is there or not; only of an engine that
        /// nodes share.
        last: Option<Box<About>>,
    },
    /// Others took it for dead: every claim that it holds is void, and it gets none before its next beat, which is that
    /// of a new node.
    Dead,
}

/// A node as others see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Its name.
    pub node: Node,
    /// Grows with each of its beats.
    pub beat: u64,
    /// What it said with the last one.
    pub about: About,
}

/// A prediction whose news are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Its id.
    pub id: String,
    /// Its number.
    pub seq: u64,
    /// How many bytes of its present attempt's logs have been read.
    pub read: usize,
}

/// What has become of a prediction.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// One that this node holds is to stop.
    Stop(Claim),
    /// An awaited one waits.
    Waits {
        /// Its number.
        seq: u64,
        /// Attempts so far.
        attempts: u32,
    },
    /// An awaited one runs.
    Runs {
        /// Its number.
        seq: u64,
        /// Which attempt this is; with a new one, its logs begin again.
        attempts: u32,
        /// When the attempt began.
        started_at: Time,
        /// Logs after those that have been read.
        logs: String,
        /// Metrics now.
        metrics: Box<Metrics>,
    },
    /// An awaited one has ended.
    Ended(Box<Record>),
    /// An awaited one was removed, or its id is another prediction's now.
    Gone {
        /// Its number.
        seq: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(units_per_second: Option<f64>) -> About {
        let model = serde_json::json!({
            "name": "m", "version": "v", "window": 64, "vae_factor": 8, "device": "cpu", "dtype": "f32"
        });
        About { model: serde_json::from_value(model).unwrap(), ready: 1, free: 2, units_per_second, ..About::default() }
    }

    /// As nodes of earlier and later versions write it.
    #[test]
    fn what_other_versions_say_of_themselves_is_read() {
        let earlier: About =
            serde_json::from_str(r#"{"version": "0.1.0", "model": null, "ready": 1, "free": 1}"#).unwrap();
        assert_eq!((earlier.ready, earlier.unusable.len()), (1, 0));
        let later = r#"{"ready": 1, "unusable": {"unipc": "why", "yet-to-come": "why"}, "more": [1]}"#;
        let later: About = serde_json::from_str(later).unwrap();
        assert_eq!(later.unusable.keys().collect::<Vec<_>>(), ["unipc", "yet-to-come"]);
    }

    #[test]
    fn a_node_is_remembered_anew_when_model_or_speed_differ() {
        let remembered = about(Some(10.0)).lasting();
        assert!(!remembered.draws() && remembered.free == 0);
        for speed in [None, Some(9.0), Some(12.0)] {
            assert!(!about(speed).differs(&remembered), "{speed:?}");
        }
        for speed in [Some(7.0), Some(13.0)] {
            assert!(about(speed).differs(&remembered), "{speed:?}");
        }
        assert!(about(Some(1.0)).differs(&about(None)), "it was not known");
        let mut other = about(None);
        other.unusable.insert("unipc".to_owned(), "why".to_owned());
        assert!(other.differs(&remembered));
    }
}
