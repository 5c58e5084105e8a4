//! The methods of the trait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use super::lane::{Commit, Lane, Taken, Tried};
use super::link::PATIENCE;
use super::looks::{self, By};
use super::rows::{self, Contents, number, stored_id};
use super::search::{self, Asked};
use super::shared::Straying;
use super::writes::{self, Accept};
use super::{Postgres, accepting, agree, finishing, previews, sweep};
use crate::mutex::lock;
use crate::preview::Preview;
use crate::store::api::{Answer, Store};
use crate::store::error::StoreError;
use crate::store::record::{Found, Picture, Query, Record, Retention, Stored, Which};
use crate::store::usage::Usage;
use crate::store::work::{
    About, Accepted, Adopted, Awaited, Beat, Board, Claim, Claimed, New, News, Node, Outcome, Place, Room, Said,
    Stopped, Wants,
};
use crate::time::Time;

/// How long a beat may take at least, however short the lease.
const MIN_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of pictures on their way into the bucket above which nothing more is claimed: what is drawn while the bucket
/// is away waits in memory.
const MAX_UNDER_WAY: usize = 512 << 20;

/// Adds a picture to a prediction; false if that is gone.
fn add(lane: &Lane, id: String, seq: i64, picture: Contents) -> Answer<'static, bool> {
    let (size, picture) = (picture.size(), Arc::new(picture));
    lane.write(
        (Commit::Durable, Taken::IfRoom),
        size,
        move |client| writes::add_picture(client, id.clone(), seq, Arc::clone(&picture)),
        |added| Ok(added.outcome?),
    )
}

/// An answer that is known at once.
fn ready<T: Send + 'static>(value: Result<T, StoreError>) -> Answer<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Store for Postgres {
    fn durable(&self) -> bool {
        true
    }

    fn trouble(&self) -> Option<String> {
        self.shared.looks.trouble().or_else(|| self.shared.truth.trouble())
    }

    fn accept(&self, new: New, room: Room) -> Answer<'_, Accepted> {
        let New { record, units, tenant, wire, key, idempotent, inputs } = new;
        let (id, version) = (stored_id(&record.prediction.id).into_owned(), record.prediction.version.clone());
        let record = match rows::text(&record) {
            Ok(record) => record,
            Err(error) => return ready(Err(error)),
        };
        let (request, place) = (Uuid::new_v4(), self.shared.objects.for_new().filter(|_| !inputs.is_empty()));
        let inputs = Contents::Here(inputs);
        let new = Accept { request, id, tenant, key, idempotent, units, wire, version, record, inputs };
        let shared = Arc::clone(&self.shared);
        if let Some(place) = place {
            let lane = self.lane.clone();
            return Box::pin(self.run(async move {
                let asked = accepting::write_outside(&shared, &lane, &place, new, room).await?;
                accepting::accepted(&shared, asked).await
            }));
        }
        let asked = accepting::write(&shared, &self.lane, new, room);
        Box::pin(async move {
            let asked = asked.await?;
            self.run(async move { accepting::accepted(&shared, asked).await }).await
        })
    }

    fn claim(&self, wants: Wants) -> Answer<'_, Vec<Claimed>> {
        let (shared, done) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        if shared.objects.under_way() > MAX_UNDER_WAY {
            return ready(Ok(Vec::new()));
        }
        // As it is stored.
        let now = Time::from_micros(Time::now().micros());
        self.lane.write(
            (Commit::Quick, Taken::Always),
            0,
            move |client| writes::claim(client, shared.me(), wants.clone(), now),
            move |Tried { outcome, in_doubt }| {
                if in_doubt {
                    done.expect_strays();
                }
                let rows = outcome?;
                let claimed = rows.iter().filter_map(|row| {
                    writes::claimed(row, now).inspect_err(|error| done.note_unreadable(row, error)).ok()
                });
                let claimed: Vec<_> = claimed.collect();
                done.hand_out(&claimed);
                Ok(claimed)
            },
        )
    }

    fn finish(&self, claim: &Claim, record: Record, pictures: Vec<Picture>) -> Answer<'_, Outcome> {
        let (shared, claim) = (Arc::clone(&self.shared), *claim);
        if let Some(place) = shared.objects.for_new().filter(|_| !pictures.is_empty()) {
            let lane = self.lane.clone();
            return Box::pin(self.run(async move {
                finishing::finish_outside(&shared, &lane, &place, (claim, record), pictures).await
            }));
        }
        let end = match finishing::end(&claim, record, Contents::Here(pictures)) {
            Ok(end) => end,
            Err(error) => return ready(Err(error)),
        };
        if finishing::is_unsure(&shared, claim) {
            let lane = self.lane.clone();
            return Box::pin(self.run(async move { finishing::again(&shared, &lane, end).await }));
        }
        let written = finishing::write(&shared, &self.lane, end);
        Box::pin(async move {
            let outcome = written.await?;
            self.run(async move { finishing::settle(&shared, claim, outcome).await }).await
        })
    }

    fn give_back(&self, claim: &Claim, counted: bool, logs: String) -> Answer<'_, Outcome> {
        let (shared, claim) = (Arc::clone(&self.shared), *claim);
        self.lane.steps(async move { shared.give_back(claim, counted, Some(logs)).await })
    }

    fn stop_one(&self, id: &str, seq: Option<u64>) -> Answer<'_, Stopped> {
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        self.lane.steps(async move { shared.stop(&id, seq).await })
    }

    fn beat(&self, about: &About, said: Vec<Said>) -> Answer<'_, Beat> {
        let (shared, said) = (Arc::clone(&self.shared), Arc::new(said));
        let about = agree::about(about);
        if let Some(straying) = Straying::begin(&shared) {
            drop(self.lane.steps(async move { straying.give_back().await }));
        }
        Box::pin(async move {
            if shared.is_dead() {
                let shared = Arc::clone(&shared);
                self.lane.steps(async move { shared.register().await }).await?;
            }
            self.run(async move { shared.beat(about?, said).await }).await
        })
    }

    fn expect_lease(&self, lease: Duration) {
        let patience = (lease / 3).clamp(MIN_PATIENCE, PATIENCE);
        self.shared.patience.store(patience.as_millis() as u64, Ordering::Relaxed);
    }

    fn reap(&self, node: Node, beat: u64) -> Answer<'_, bool> {
        let shared = Arc::clone(&self.shared);
        self.lane.steps(async move { shared.reap(node, beat).await })
    }

    fn adopt(&self) -> Answer<'_, Adopted> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let look = Arc::clone(&shared);
            if !self.run(async move { look.has_orphans().await }).await? {
                return Ok(Adopted::default());
            }
            self.lane.steps(async move { shared.adopt().await }).await
        })
    }

    fn news(&self, of: &[Awaited]) -> Answer<'_, Vec<News>> {
        let (shared, of) = (Arc::clone(&self.shared), Arc::new(of.to_vec()));
        Box::pin(self.run(async move {
            let from = shared.held_from();
            let (stops, told) =
                shared.looks.read(|client| looks::news(client, (shared.me(), from), Arc::clone(&of))).await?;
            let stops = stops.iter().map(|row| {
                let (seq, token) = rows::claim_of(row);
                News::Stop(Claim { seq, token })
            });
            let told = told.iter().zip(&*of).map(|(row, awaited)| {
                looks::told(row, awaited).unwrap_or_else(|_| {
                    // That is logged, once, and nothing more is heard of it.
                    shared.unreadable.skip(row);
                    News::Gone { seq: awaited.seq }
                })
            });
            Ok(stops.chain(told).collect())
        }))
    }

    fn watch(&self, seqs: Vec<u64>) -> Answer<'_, Vec<(u64, Preview)>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.run(async move { shared.looks.read(async |client| previews::watch(client, &seqs).await).await }))
    }

    fn show(&self, runs: Vec<u64>, new: Vec<(u64, Arc<Preview>)>) -> Answer<'_, Vec<u64>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(
            self.run(async move { shared.looks.read(async |client| previews::show(client, &runs, &new).await).await }),
        )
    }

    fn place(&self, seq: u64) -> Answer<'_, Option<Place>> {
        let (shared, seq) = (Arc::clone(&self.shared), number(seq));
        let mixed = shared.mixed.load(Ordering::Relaxed);
        Box::pin(self.run(async move { shared.looks.read(|client| looks::place(client, seq, mixed)).await }))
    }

    fn by_version(&self) -> Answer<'_, Vec<(String, Board)>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.run(async move {
            let counted = shared.looks.read(looks::by_version).await?;
            shared.mixed.store(counted.len() > 1, Ordering::Relaxed);
            Ok(counted)
        }))
    }

    fn board(&self) -> Board {
        *lock(&self.shared.board)
    }

    fn admits(&self, room: &Room) -> bool {
        let since = self.shared.handed_out.load(Ordering::Relaxed).saturating_sub(room.claims);
        room.after(since).admits(self.board())
    }

    fn get(&self, id: &str) -> Answer<'_, Option<Stored>> {
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        Box::pin(self.run(async move { shared.stored(By::Id(&id)).await }))
    }

    fn record(&self, id: &str) -> Answer<'_, Option<Record>> {
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        Box::pin(self.run(async move { shared.record(&id).await }))
    }

    fn of_key(&self, tenant: &str, key: &str) -> Answer<'_, Option<Stored>> {
        let (shared, tenant, key) = (Arc::clone(&self.shared), tenant.to_owned(), key.to_owned());
        Box::pin(self.run(async move { shared.stored(By::Key(&tenant, &key)).await }))
    }

    fn picture(&self, id: &str, which: Which) -> Answer<'_, Option<Picture>> {
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        Box::pin(self.run(async move { shared.picture(&id, &which).await }))
    }

    fn add_picture(&self, id: &str, seq: u64, picture: Picture) -> Answer<'_, ()> {
        let (shared, id, seq) = (Arc::clone(&self.shared), stored_id(id).into_owned(), number(seq));
        let Some(place) = shared.objects.for_new() else {
            let added = add(&self.lane, id, seq, Contents::Here(vec![picture]));
            return Box::pin(async move { added.await.map(drop) });
        };
        let lane = self.lane.clone();
        Box::pin(self.run(async move {
            let objects = shared.put(&place, &[picture]).await?;
            if !add(&lane, id, seq, Contents::There(objects.clone())).await? {
                shared.discard(&place, objects);
            }
            Ok(())
        }))
    }

    fn file(&self, name: &str) -> Answer<'_, Option<Arc<[u8]>>> {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        Box::pin(self.run(async move { shared.file(&name).await }))
    }

    fn search(&self, query: Query<'_>) -> Answer<'_, Found> {
        let shared = Arc::clone(&self.shared);
        let Query { before, after, status, text, limit } = query;
        let asked = Asked { before, after, status, text: text.map(str::to_owned), limit };
        Box::pin(self.run(async move { search::search(&shared.bytes, asked, &shared.unreadable).await }))
    }

    fn usage(&self) -> Answer<'_, Vec<Usage>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.run(async move { shared.bytes.read(looks::usage).await }))
    }

    fn delete(&self, id: &str) -> Answer<'_, bool> {
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        self.lane.steps(async move {
            let deleted = shared.delete(&id).await;
            shared.objects.nudge.notify_one();
            deleted
        })
    }

    fn mark_delivered(&self, id: &str, seq: u64) -> Answer<'_, ()> {
        let (id, seq) = (stored_id(id).into_owned(), number(seq));
        self.lane.write(
            (Commit::Durable, Taken::Always),
            0,
            move |client| writes::mark_delivered(client, id.clone(), seq),
            |marked| Ok(marked.outcome?),
        )
    }

    fn sweep(&self, retention: Retention) -> Answer<'_, u64> {
        let (shared, lane) = (Arc::clone(&self.shared), self.lane.clone());
        Box::pin(self.run(async move {
            let swept = sweep::sweep(&shared, &lane, retention).await;
            if !matches!(swept, Ok(0)) {
                // Some may be gone also where it has failed.
                shared.objects.nudge.notify_one();
            }
            swept
        }))
    }
}
