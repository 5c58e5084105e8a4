//! Where predictions live: the [`Store`] trait and its engines. A store is the queue, the history and the pictures at
//! once, so that one step changes all of them or none.
//!
//! # The life of a prediction
//! ```text
//!  accept -> starting --claim--> processing --finish--> succeeded | failed | canceled
//!              |  ^                   |
//!              |  +---- give back ----+   a lost worker or a dead node (counted), a node that leaves (not counted)
//!              +-- stop --> canceled
//! ```
//! - [`Store::accept`] stores and queues. [`Accepted::New`] means that the prediction outlives the process (the
//!   machine, with a durable engine), and that a claim may find it.
//! - [`Store::claim`] hands out what comes next, each under a random token ([`Claim`]). It answers at once.
//! - [`Store::finish`] and [`Store::give_back`] name the token. If it does not hold any more, they answer
//!   [`Outcome::Fenced`]: drop the work, report nothing. Otherwise report what [`Outcome::Ended`] holds, and nothing
//!   before: a prediction that was asked to stop ends as canceled although it succeeded.
//! - [`Store::stop`] ends what waits and answers with the record to report; of what runs it stores the wish, so that a
//!   crash does not forget it. The caller then stops its own worker; another node finds the wish by [`Store::news`].
//! - A call that fails has changed nothing, and may be made again: an end is retried until it is stored or fenced. The
//!   exception is [`Store::give_back`], after which the prediction waits in any case; at worst an attempt is counted
//!   wrongly.
//!
//! # Nodes
//! One value of an engine is one node. It calls [`Store::beat`] every second; [`Watch`] says which of the others stand
//! still, and [`Store::reap`] gives back what a dead one held. After [`Beat::Dead`] a node drops what it holds. Opening
//! a folder reaps the process that had it before. Whoever starts calls [`Store::adopt`] until there is no more, and
//! again while there are other nodes and once after the last of them is gone, and follows what it is given: deadlines
//! and webhooks of predictions are looked after by the node that accepted or adopted them.
//!
//! # What always holds
//! - Writes take effect in the order in which the methods were called (not polled).
//! - Within a tenant, predictions are claimed in the order of acceptance; what comes back is in front of what came
//!   later.
//! - A prediction ends once, and is counted then for the name of its token ([`Store::usage`]).
//!
//! Every engine passes the tests of `suite`, and answers as [`Memory`] does.

mod api;
mod ends;
mod error;
mod jobs;
mod lease;
mod memory;
mod postgres;
mod queue;
mod record;
mod sqlite;
#[cfg(test)]
mod suite;
mod usage;
mod work;

pub use api::{Answer, Store};
pub(crate) use ends::announce;
pub use error::StoreError;
pub use lease::Watch;
pub use memory::Memory;
pub use postgres::{Inspected, Postgres, inspect_database, inspect_pictures};
#[cfg(test)]
pub(crate) use record::tests::record_of;
pub use record::{Found, Key, Kind, MAX_LOOKED, Picture, Query, Record, Retention, Stored, Which};
pub use sqlite::{Finding, Sqlite, inspect};
pub use usage::Usage;
pub use work::{
    About, Accepted, Adopted, Awaited, Beat, Board, Claim, Claimed, MAX_ATTEMPTS, New, News, Node, Outcome, Peer,
    Place, Room, Said, Stopped, Wants,
};
