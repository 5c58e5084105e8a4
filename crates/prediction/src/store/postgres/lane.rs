//! Writes in the order in which they were called, on one connection.
//!
//! What has gathered since the last commit goes out at once, in one transaction, so a burst of predictions shares one
//! flush of the server's disk. Should one of them fail, nothing of it is done, and each is tried by itself. The same
//! happens when the answer to a commit is lost with its connection: each write finds what it did then. An answer that
//! only takes too long is not waited for any more, and then nothing is written until it has come (see
//! [`super::link`]): all that waits here fails at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Client, Error};

use super::explain::Failure;
use super::link::{Link, MAX_TRIES, pause, time_to_send};
use crate::store::api::Answer;
use crate::store::error::StoreError;

/// The greatest number of statements that share a commit.
const MAX_BATCH: usize = 64;
/// Bytes after which a transaction takes no more.
const MAX_BYTES: usize = 16 << 20;
/// How many calls wait where nothing more that can be refused is taken.
pub(super) const MAX_WAITING: usize = 10_000;
/// How many bytes wait behind others where that is so.
const MAX_WAITING_BYTES: usize = 256 << 20;
/// How long a transaction holds its locks whose node is frozen in the middle.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// A future that may go to another thread.
pub(super) type Sent<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a write is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// Its commit waits for the disk. Tried a second time, it finds what the first did.
    Durable,
    /// Its commit waits for the disk only if others do that come with it. It is not tried a second time when its answer
    /// is lost.
    Quick,
}

/// Whether a write may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// What is new: it is refused while too much waits.
    IfRoom,
    /// All else: what has begun is to end, however long that takes.
    Always,
}

/// What came of a write.
pub(super) struct Tried<T> {
    pub(super) outcome: Result<T, Failure>,
    /// Whether it, or an earlier try of it, may have been done without an answer.
    pub(super) in_doubt: bool,
}

/// A write of one statement.
trait Single: Send {
    fn commit(&self) -> Commit;
    fn size(&self) -> usize;
    fn run(&mut self, client: Arc<Client>) -> Sent<'_, Result<(), Error>>;
    fn doubt(&mut self);
    fn in_doubt(&self) -> bool;
    fn answer(self: Box<Self>, failed: Option<Failure>);
}

struct Statement<W, T, D, U> {
    commit: Commit,
    size: usize,
    work: W,
    found: Option<T>,
    in_doubt: bool,
    done: D,
    to: oneshot::Sender<Result<U, StoreError>>,
}

impl<W, F, T, D, U> Single for Statement<W, T, D, U>
where
    W: Fn(Arc<Client>) -> F + Send,
    F: Future<Output = Result<T, Error>> + Send + 'static,
    D: FnOnce(Tried<T>) -> Result<U, StoreError> + Send,
    T: Send,
    U: Send,
{
    fn commit(&self) -> Commit {
        self.commit
    }

    fn size(&self) -> usize {
        self.size
    }

    fn run(&mut self, client: Arc<Client>) -> Sent<'_, Result<(), Error>> {
        let running = (self.work)(client);
        let found = &mut self.found;
        Box::pin(async move {
            *found = Some(running.await?);
            Ok(())
        })
    }

    fn doubt(&mut self) {
        self.in_doubt = true;
    }

    fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    fn answer(self: Box<Self>, failed: Option<Failure>) {
        let Self { found, in_doubt, done, to, .. } = *self;
        let outcome = match (failed, found) {
            (None, Some(found)) => Ok(found),
            (failed, _) => Err(failed.unwrap_or_else(|| Failure::before(StoreError::Closed))),
        };
        _ = to.send(done(Tried { outcome, in_doubt }));
    }
}

enum Work {
    Single(Box<dyn Single>),
    Steps(Sent<'static, ()>),
}

/// What waits.
#[derive(Default)]
struct Waiting {
    works: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    fn add(&self, bytes: usize) {
        self.works.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts one more if there is room for it.
    fn add_if_room(&self, bytes: usize) -> Result<(), StoreError> {
        let works = self.works.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if works < MAX_WAITING && (before == 0 || before + bytes <= MAX_WAITING_BYTES) {
            return Ok(());
        }
        self.remove(bytes);
        Err(StoreError::Engine("the database is slower than what it is to store; try again later".to_owned()))
    }

    fn remove(&self, bytes: usize) {
        self.works.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A handle to the lane, which ends with the last of them.
#[derive(Clone)]
pub(super) struct Lane {
    works: mpsc::UnboundedSender<Work>,
    waiting: Arc<Waiting>,
}

impl Lane {
    pub(super) fn start(runtime: &Handle, link: Arc<Link>) -> Self {
        let (works, queue) = mpsc::unbounded_channel();
        let waiting = Arc::<Waiting>::default();
        runtime.spawn(run(link, queue, Arc::clone(&waiting)));
        Self { works, waiting }
    }

    /// Sends a statement of about `size` bytes; `done` is called after its commit.
    pub(super) fn write<W, F, T, U>(
        &self,
        (commit, taken): (Commit, Taken),
        size: usize,
        work: W,
        done: impl FnOnce(Tried<T>) -> Result<U, StoreError> + Send + 'static,
    ) -> Answer<'static, U>
    where
        W: Fn(Arc<Client>) -> F + Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
        T: Send + 'static,
        U: Send + 'static,
    {
        let counted = match taken {
            Taken::IfRoom => self.waiting.add_if_room(size),
            Taken::Always => {
                self.waiting.add(size);
                Ok(())
            }
        };
        if let Err(full) = counted {
            let refused = done(Tried { outcome: Err(Failure::before(full)), in_doubt: false });
            return Box::pin(std::future::ready(refused));
        }
        let (to, answer) = oneshot::channel();
        let statement = Statement { commit, size, work, found: None, in_doubt: false, done, to };
        self.send(Work::Single(Box::new(statement)), answer)
    }

    /// Does what takes several statements, by itself. It is always taken.
    pub(super) fn steps<U: Send + 'static>(
        &self,
        steps: impl Future<Output = Result<U, StoreError>> + Send + 'static,
    ) -> Answer<'static, U> {
        self.waiting.add(0);
        let (to, answer) = oneshot::channel();
        let steps = async move { _ = to.send(steps.await) };
        self.send(Work::Steps(Box::pin(steps)), answer)
    }

    fn send<U: Send + 'static>(
        &self,
        work: Work,
        answer: oneshot::Receiver<Result<U, StoreError>>,
    ) -> Answer<'static, U> {
        // The lane is there as long as its handle.
        _ = self.works.send(work);
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

async fn run(link: Arc<Link>, mut queue: mpsc::UnboundedReceiver<Work>, waiting: Arc<Waiting>) {
    let mut put_off = None;
    loop {
        let work = match put_off.take() {
            Some(work) => work,
            None => match queue.recv().await {
                Some(work) => work,
                None => return,
            },
        };
        let first = match work {
            Work::Steps(steps) => {
                waiting.remove(0);
                steps.await;
                continue;
            }
            Work::Single(first) => first,
        };
        waiting.remove(first.size());
        let (mut size, mut batch) = (first.size(), vec![first]);
        while batch.len() < MAX_BATCH && size < MAX_BYTES {
            match queue.try_recv() {
                Ok(Work::Single(next)) => {
                    waiting.remove(next.size());
                    size += next.size();
                    batch.push(next);
                }
                Ok(other) => {
                    put_off = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        together(&link, batch).await;
    }
}

/// Does writes in one transaction, or each by itself.
async fn together(link: &Link, mut batch: Vec<Box<dyn Single>>) {
    let is_durable = batch.iter().any(|single| single.commit() == Commit::Durable);
    if batch.len() > 1 || !is_durable {
        let bytes = batch.iter().map(|single| single.size()).sum();
        let begin = begin(bytes, is_durable);
        match link.once_with(bytes, |client| transaction(client, &begin, &mut batch)).await {
            Ok(()) => return batch.into_iter().for_each(|single| single.answer(None)),
            // Nothing of it was done.
            Err(failure) if !failure.unknown => {}
            Err(failure) => {
                let mut again = Vec::new();
                for mut single in batch {
                    single.doubt();
                    match single.commit() {
                        Commit::Durable => again.push(single),
                        Commit::Quick => single.answer(Some(failure.clone())),
                    }
                }
                batch = again;
            }
        }
    }
    for single in batch {
        alone(link, single).await;
    }
}

/// How a transaction begins that sends this many bytes.
fn begin(bytes: usize, is_durable: bool) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '{}s'{}",
        (MAX_IDLE + time_to_send(bytes)).as_secs(),
        if is_durable { "" } else { "; SET LOCAL synchronous_commit = off" }
    )
}

/// Does a write in a transaction of its own. Where the answer only takes too long, the next try ends this at once.
async fn alone(link: &Link, mut single: Box<dyn Single>) {
    let mut tries = 0;
    let failed = loop {
        tries += 1;
        let size = single.size();
        let tried = match single.commit() {
            Commit::Durable => link.once_with(size, |client| single.run(client)).await,
            Commit::Quick => {
                let (begin, only) = (begin(size, false), std::slice::from_mut(&mut single));
                link.once_with(size, |client| transaction(client, &begin, only)).await
            }
        };
        let Err(failure) = tried else {
            if !single.in_doubt() {
                break None;
            }
            // It may have found what an earlier try did, whose commit nobody has waited for.
            break link.confirm().await.err();
        };
        if failure.unknown {
            single.doubt();
        }
        let is_last = tries == MAX_TRIES || (!failure.again && (!failure.unknown || single.commit() == Commit::Quick));
        if is_last {
            break Some(failure);
        }
        if failure.again {
            pause().await;
        }
    };
    single.answer(failed);
}

/// Sends a transaction without waiting for the answers in between. After an error in one of them it is rolled back.
async fn transaction(client: Arc<Client>, begin: &str, batch: &mut [Box<dyn Single>]) -> Result<(), Error> {
    let mut calls: Vec<Sent<'_, Result<(), Error>>> = Vec::with_capacity(batch.len() + 2);
    calls.push(Box::pin(client.batch_execute(begin)));
    calls.extend(batch.iter_mut().map(|single| single.run(Arc::clone(&client))));
    calls.push(Box::pin(client.batch_execute("COMMIT")));
    let mut answers: Vec<Option<Result<(), Error>>> = calls.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        // Each is sent when it is polled for the first time, so in their order.
        for (call, answer) in calls.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let Poll::Ready(outcome) = call.as_mut().poll(cx)
            {
                *answer = Some(outcome);
            }
        }
        if answers.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let mut errors: Vec<Error> = answers.into_iter().flatten().filter_map(Result::err).collect();
    // Whether it was done is not known if the connection is lost, whatever went wrong before.
    let worst = errors.iter().position(super::explain::ends_connection).unwrap_or(0);
    if errors.is_empty() { Ok(()) } else { Err(errors.swap_remove(worst)) }
}
