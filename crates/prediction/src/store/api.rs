//! The trait of all engines.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::error::StoreError;
use super::record::{Found, Picture, Query, Record, Retention, Stored, Which};
use super::usage::Usage;
use super::work::{
    About, Accepted, Adopted, Awaited, Beat, Board, Claim, Claimed, New, News, Node, Outcome, Place, Room, Said,
    Stopped, Wants,
};
use crate::preview::Preview;

/// The answer of a store.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// An engine that stores predictions and queues them. One value of it is one node. See [the module](super) for how it
/// is used.
pub trait Store: Send + Sync + 'static {
    /// Whether records outlive the process.
    fn durable(&self) -> bool;

    /// Why new predictions should not be accepted, if so: what is wrong with the disk, and what to do. Answers at once,
    /// and is `None` again by itself when the trouble is over.
    fn trouble(&self) -> Option<String>;

    /// Accepts a prediction: stores it and queues it, in place of an ended one with the same id.
    fn accept(&self, new: New, room: Room) -> Answer<'_, Accepted>;

    /// Claims predictions for this node, those first that come first in the queue. The rest of the service may not have
    /// heard of them yet when this is called right after [`Store::accept`] by another task.
    fn claim(&self, wants: Wants) -> Answer<'_, Vec<Claimed>>;

    /// Ends a claimed prediction with its pictures. `record` says how: its status is terminal.
    fn finish(&self, claim: &Claim, record: Record, pictures: Vec<Picture>) -> Answer<'_, Outcome>;

    /// Gives a claimed prediction back to the queue: `counted` after a lost worker, not counted when the node leaves.
    /// `logs` are those of the prediction so far.
    fn give_back(&self, claim: &Claim, counted: bool, logs: String) -> Answer<'_, Outcome>;

    /// Asks the prediction of an id to stop. The answer comes when that is stored.
    fn stop(&self, id: &str) -> Answer<'_, Stopped> {
        self.stop_one(id, None)
    }

    /// The same. With a number, only the prediction that has it: where another has the id by now, it is
    /// [`Stopped::TooLate`].
    fn stop_one(&self, id: &str, seq: Option<u64>) -> Answer<'_, Stopped>;

    /// Says that this node is alive, and how far its predictions have come. To be called every second.
    fn beat(&self, about: &About, said: Vec<Said>) -> Answer<'_, Beat>;

    /// Others take this node for dead when its beat stands still for this long. To be told before the first one.
    fn expect_lease(&self, _lease: Duration) {}

    /// Takes a node for dead whose beat has stood still at `beat`: what it held waits again or, after
    /// [`super::MAX_ATTEMPTS`], has failed; nobody looks after what it accepted. False if it has moved, or another node
    /// was quicker.
    fn reap(&self, node: Node, beat: u64) -> Answer<'_, bool>;

    /// The predictions that nobody looks after, because the node that accepted them is gone: those that have not ended,
    /// and those whose webhook has yet to be delivered. From now on this node looks after them. An engine may answer
    /// with a part of them, and says so.
    fn adopt(&self) -> Answer<'_, Adopted>;

    /// What has become of predictions that others work on, and what is to stop here.
    fn news(&self, of: &[Awaited]) -> Answer<'_, Vec<News>>;

    /// Somebody watches these predictions here, which other nodes run: their newest previews so far, by number. To be
    /// called every second.
    fn watch(&self, _seqs: Vec<u64>) -> Answer<'_, Vec<(u64, Preview)>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// This node runs these predictions, and has these new previews of them: which of them are watched on other nodes.
    fn show(&self, _runs: Vec<u64>, _previews: Vec<(u64, Arc<Preview>)>) -> Answer<'_, Vec<u64>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Where a prediction stands in the queue, among what the same nodes could draw; `None` if it does not wait.
    fn place(&self, seq: u64) -> Answer<'_, Option<Place>>;

    /// How much waits for each version of a model, of what comes first in the queue; only of an engine that nodes
    /// share.
    fn by_version(&self) -> Answer<'_, Vec<(String, Board)>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// How much waits, as far as this node knows. Answers at once.
    fn board(&self) -> Board;

    /// Whether there is room for one more prediction, as [`Store::accept`] would find. Answers at once.
    fn admits(&self, room: &Room) -> bool;

    /// The prediction of an id.
    fn get(&self, id: &str) -> Answer<'_, Option<Stored>>;

    /// The record of an id as it is stored, without a look at its pictures.
    fn record(&self, id: &str) -> Answer<'_, Option<Record>>;

    /// The prediction of a tenant's `Idempotency-Key`.
    fn of_key(&self, tenant: &str, key: &str) -> Answer<'_, Option<Stored>>;

    /// One of the pictures of a prediction.
    fn picture(&self, id: &str, which: Which) -> Answer<'_, Option<Picture>>;

    /// Stores a picture made of one that is stored, unless the prediction is gone.
    fn add_picture(&self, id: &str, seq: u64, picture: Picture) -> Answer<'_, ()>;

    /// The picture that is served under a name.
    fn file(&self, name: &str) -> Answer<'_, Option<Arc<[u8]>>>;

    /// Records without their pictures.
    fn search(&self, query: Query<'_>) -> Answer<'_, Found>;

    /// The records alone that [`Store::search`] finds: all of them, unless the query has a text.
    fn list(&self, query: Query<'_>) -> Answer<'_, Vec<Record>> {
        let found = self.search(query);
        Box::pin(async move { Ok(found.await?.records) })
    }

    /// What was drawn for each name, by name. It stays when predictions are removed.
    fn usage(&self) -> Answer<'_, Vec<Usage>>;

    /// Removes a prediction that has ended, with its pictures, and forgets a webhook that has yet to be delivered.
    /// False if there is none. Works on a full disk.
    fn delete(&self, id: &str) -> Answer<'_, bool>;

    /// The webhook of a prediction has been delivered, or has been given up.
    fn mark_delivered(&self, id: &str, seq: u64) -> Answer<'_, ()>;

    /// Removes what retention does not keep, in small steps between which others get their turn; the answer is how
    /// many.
    fn sweep(&self, retention: Retention) -> Answer<'_, u64>;
}
