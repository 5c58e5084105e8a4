//! The life of a prediction: the phases it goes through, and what leads from one to the next.
//!
//! ```text
//!                                    .-- requeue (its worker was lost)
//!                                    v          |
//! Storing -- stored --> Queued -- begin --> Running -- computed --> Delivering
//!    |                     |                    |                        |
//!    |                     +----- hand_back ----+------ finish ----------+
//!    |                     |  (the server stops)|  (or canceled)         |
//!    |                     v                    v                        v
//!    +-- refuse --> Refused           HandedBack          Finishing -- publish --> Ended
//!    +-- known ----------------------------------------------------------------> Ended
//! ```
//!
//! Fields are private and change by these methods only; each reports whether the change was allowed, and leaves
//! everything as it was if not. What always holds: a prediction ends at most once, and only by way of
//! [`Phase::Finishing`], in which its end is being stored; nothing leads away from [`Phase::Ended`],
//! [`Phase::HandedBack`] and [`Phase::Refused`]; the first reason to stop stays.
//!
//! A prediction that runs on another node of a fleet will be one more phase, entered from `Queued` and left to `Queued`
//! or `Ended`.

use std::sync::Arc;

use protocol::Work;

use crate::wire::{Prediction, Status};

/// Where a prediction is.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// It is being stored, and its request is not answered yet.
    Storing,
    /// It waits for a worker.
    Queued,
    /// A worker computes it, under the name of a job.
    Running { worker: usize, job: String },
    /// The worker is done; the picture is being encoded and sent.
    Delivering,
    /// Its end is decided and being stored. `started` tells whether a worker ever began.
    Finishing { started: bool },
    /// It has ended, and that is stored.
    Ended(Arc<Prediction>),
    /// The server stops; it waits in the store for the next one.
    HandedBack,
    /// It could not be stored, and never existed.
    Refused(String),
}

impl Phase {
    /// The status that the wire shows.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Running { .. } | Self::Delivering | Self::Finishing { started: true } => Status::Processing,
            Self::Ended(prediction) => prediction.status,
            Self::Storing | Self::Queued | Self::Finishing { started: false } | Self::HandedBack | Self::Refused(_) => {
                Status::Starting
            }
        }
    }

    /// Whether nothing happens to it any more in this process.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::HandedBack | Self::Refused(_))
    }
}

/// Why a prediction is to stop.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// Somebody asked for it, its client left, or the `Cancel-After` of its request has passed.
    Canceled,
    /// It ran for longer than the seconds that any prediction may.
    TooLong(f64),
}

/// How a prediction ends.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// With a picture: its data URI or URL, and what was computed for it.
    Succeeded { output: Arc<str>, work: Work },
    /// With an error.
    Failed(String),
    /// Without either.
    Canceled,
}

/// The phase of a prediction and everything that decides about the next one.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: Phase,
    /// How many times a worker was given it.
    attempts: u32,
    /// Why it is to stop, once it is.
    stop: Option<Stop>,
    /// How many clients follow its events.
    followers: usize,
    /// Whether it stops when the last of them leaves.
    cancel_when_unfollowed: bool,
}

impl Lifecycle {
    /// That of a new prediction.
    pub(crate) fn storing() -> Self {
        Self { phase: Phase::Storing, attempts: 0, stop: None, followers: 0, cancel_when_unfollowed: false }
    }

    /// That of a prediction which the store holds unfinished.
    pub(crate) fn queued(attempts: u32) -> Self {
        Self { phase: Phase::Queued, attempts, ..Self::storing() }
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(crate) fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// It is in the store, and waits.
    pub(crate) fn stored(&mut self) -> bool {
        let allowed = matches!(self.phase, Phase::Storing);
        self.go(allowed, Phase::Queued)
    }

    /// It is not in the store, and will not be.
    pub(crate) fn refuse(&mut self, why: String) -> bool {
        let allowed = matches!(self.phase, Phase::Storing);
        self.go(allowed, Phase::Refused(why))
    }

    /// The store knows its id, as one that has ended before.
    pub(crate) fn known(&mut self, ended: Arc<Prediction>) -> bool {
        let allowed = matches!(self.phase, Phase::Storing) && ended.status.is_terminal();
        self.go(allowed, Phase::Ended(ended))
    }

    /// A worker gets it. Not if it is to stop.
    pub(crate) fn begin(&mut self, worker: usize, job: String) -> bool {
        let allowed = matches!(self.phase, Phase::Queued) && self.stop.is_none();
        self.attempts += u32::from(allowed);
        self.go(allowed, Phase::Running { worker, job })
    }

    /// Its worker was lost; it waits again. Not if it is to stop.
    pub(crate) fn requeue(&mut self) -> bool {
        let allowed = matches!(self.phase, Phase::Running { .. }) && self.stop.is_none();
        self.go(allowed, Phase::Queued)
    }

    /// Its worker is done with it.
    pub(crate) fn computed(&mut self) -> bool {
        let allowed = matches!(self.phase, Phase::Running { .. });
        self.go(allowed, Phase::Delivering)
    }

    /// The server stops, and it waits for the next one. An attempt that was cut short does not count.
    pub(crate) fn hand_back(&mut self) -> bool {
        let running = matches!(self.phase, Phase::Running { .. });
        self.attempts -= u32::from(running);
        let allowed = running || matches!(self.phase, Phase::Queued);
        self.go(allowed, Phase::HandedBack)
    }

    /// Asks it to stop. The first reason stays.
    pub(crate) fn request_stop(&mut self, stop: Stop) -> bool {
        let allowed = matches!(self.phase, Phase::Storing | Phase::Queued | Phase::Running { .. } | Phase::Delivering);
        if allowed {
            self.stop.get_or_insert(stop);
        }
        allowed
    }

    /// Decides its end, which is to be stored: the one proposed, unless it was asked to stop before.
    pub(crate) fn finish(&mut self, proposed: End) -> Option<End> {
        let started = matches!(self.phase, Phase::Running { .. } | Phase::Delivering);
        let allowed = started || matches!(self.phase, Phase::Queued);
        if !self.go(allowed, Phase::Finishing { started }) {
            return None;
        }
        Some(match (&self.stop, proposed) {
            (Some(Stop::Canceled), _) => End::Canceled,
            (Some(Stop::TooLong(most)), End::Canceled) => {
                End::Failed(format!("it took longer than the {most} seconds that a prediction may take"))
            }
            (_, end) => end,
        })
    }

    /// Its end is stored, and this is it.
    pub(crate) fn publish(&mut self, ended: Arc<Prediction>) -> bool {
        let allowed = matches!(self.phase, Phase::Finishing { .. }) && ended.status.is_terminal();
        self.go(allowed, Phase::Ended(ended))
    }

    /// One more follows its events; `cancel_when_unfollowed` ties its life to those who do.
    pub(crate) fn follow(&mut self, cancel_when_unfollowed: bool) {
        self.followers += 1;
        self.cancel_when_unfollowed |= cancel_when_unfollowed;
    }

    /// One less follows its events; whether it is to stop for that.
    pub(crate) fn unfollow(&mut self) -> bool {
        self.followers = self.followers.saturating_sub(1);
        self.cancel_when_unfollowed && self.followers == 0
    }

    fn go(&mut self, allowed: bool, to: Phase) -> bool {
        if allowed {
            self.phase = to;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::wire::tests::accepted;

    #[derive(Clone, Debug)]
    enum Step {
        Stored,
        Refuse,
        Known,
        Begin,
        Requeue,
        Computed,
        HandBack,
        Cancel,
        TooLong,
        Finish(End),
        Publish(Status),
        Follow(bool),
        Unfollow,
    }

    fn step() -> impl Strategy<Value = Step> {
        let picture = End::Succeeded { output: "data:,".into(), work: Work::default() };
        let ends = prop::sample::select(vec![picture, End::Failed("why".to_owned()), End::Canceled]);
        let statuses = prop::sample::select(Status::ALL.to_vec());
        prop_oneof![
            4 => Just(Step::Stored),
            1 => Just(Step::Refuse),
            1 => Just(Step::Known),
            6 => Just(Step::Begin),
            3 => Just(Step::Requeue),
            3 => Just(Step::Computed),
            1 => Just(Step::HandBack),
            1 => Just(Step::Cancel),
            1 => Just(Step::TooLong),
            3 => ends.prop_map(Step::Finish),
            3 => statuses.prop_map(Step::Publish),
            1 => any::<bool>().prop_map(Step::Follow),
            1 => Just(Step::Unfollow),
        ]
    }

    fn ended(status: Status) -> Arc<Prediction> {
        Arc::new(Prediction { status, ..accepted("a", &json!({"prompt": "a"})) })
    }

    /// How far along a phase is: nothing but a requeue may lead back.
    fn rank(phase: &Phase) -> u32 {
        match phase {
            Phase::Storing => 0,
            Phase::Queued => 1,
            Phase::Running { .. } => 2,
            Phase::Delivering => 3,
            Phase::Finishing { .. } => 4,
            Phase::Ended(_) | Phase::HandedBack | Phase::Refused(_) => 5,
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_a_prediction_ends_once_and_stays_so(
            resumed in prop::option::of(0_u32..2),
            steps in prop::collection::vec(step(), 0..40),
        ) {
            let mut life = resumed.map_or_else(Lifecycle::storing, Lifecycle::queued);
            let mut stored = resumed.is_some();
            let (mut ends, mut begun, mut handed_back) = (0, 0, 0);
            for step in steps {
                let (before, stop, attempts) = (life.phase.clone(), life.stop.clone(), life.attempts);
                let (done, expected) = match step.clone() {
                    Step::Stored => (life.stored(), matches!(before, Phase::Storing)),
                    Step::Refuse => (life.refuse("full".to_owned()), matches!(before, Phase::Storing)),
                    Step::Known => (life.known(ended(Status::Failed)), matches!(before, Phase::Storing)),
                    Step::Begin => {
                        (life.begin(1, "j".to_owned()), stop.is_none() && matches!(before, Phase::Queued))
                    }
                    Step::Requeue => (life.requeue(), stop.is_none() && matches!(before, Phase::Running { .. })),
                    Step::Computed => (life.computed(), matches!(before, Phase::Running { .. })),
                    Step::HandBack => (life.hand_back(), matches!(before, Phase::Queued | Phase::Running { .. })),
                    Step::Cancel => (life.request_stop(Stop::Canceled), rank(&before) < 4),
                    Step::TooLong => (life.request_stop(Stop::TooLong(1.0)), rank(&before) < 4),
                    Step::Finish(end) => {
                        let decided = life.finish(end.clone());
                        match (&decided, &stop, &end) {
                            (None, ..)
                            | (Some(End::Canceled), Some(Stop::Canceled), _)
                            | (Some(End::Failed(_)), Some(Stop::TooLong(_)), End::Canceled) => {}
                            (Some(is), stop, end) => {
                                prop_assert!(*stop != Some(Stop::Canceled));
                                prop_assert_eq!(format!("{is:?}"), format!("{end:?}"));
                            }
                        }
                        (decided.is_some(), (1..4).contains(&rank(&before)))
                    }
                    Step::Publish(status) => (
                        life.publish(ended(status)),
                        status.is_terminal() && matches!(before, Phase::Finishing { .. }),
                    ),
                    Step::Follow(tie) => {
                        life.follow(tie);
                        continue;
                    }
                    Step::Unfollow => {
                        let last = life.unfollow();
                        prop_assert_eq!(last, life.cancel_when_unfollowed && life.followers == 0);
                        continue;
                    }
                };
                prop_assert_eq!(done, expected, "{:?} from {:?}", step, before);
                stored |= done && matches!(step, Step::Stored);
                ends += u32::from(done && matches!(step, Step::Publish(_) | Step::Known));
                begun += u32::from(done && matches!(step, Step::Begin));
                handed_back +=
                    u32::from(done && matches!((&step, &before), (Step::HandBack, Phase::Running { .. })));
                if !done {
                    prop_assert_eq!(format!("{:?}", life.phase), format!("{before:?}"), "refused, and moved");
                    prop_assert_eq!(&life.stop, &stop);
                    prop_assert_eq!(life.attempts, attempts);
                }
                let back = rank(&life.phase) < rank(&before);
                prop_assert!(!back || matches!(step, Step::Requeue), "{:?} leads back from {:?}", step, before);
                prop_assert!(!before.is_over() || !done, "{:?} leads away from {:?}", step, before);
                prop_assert!(stop.is_none() || life.stop == stop, "the first reason stays");
                prop_assert_eq!(life.attempts, resumed.unwrap_or(0) + begun - handed_back);
                prop_assert_eq!(life.phase.status().is_terminal(), matches!(life.phase, Phase::Ended(_)));
                prop_assert!(stored || matches!(life.phase, Phase::Storing | Phase::Refused(_) | Phase::Ended(_)));
                prop_assert!(ends <= 1);
            }
        }
    }

    #[test]
    fn the_status_of_the_wire_follows_from_the_phase() {
        let mut life = Lifecycle::storing();
        let mut statuses = vec![life.phase().status()];
        life.stored();
        statuses.push(life.phase().status());
        life.begin(0, "1".to_owned());
        statuses.push(life.phase().status());
        life.computed();
        statuses.push(life.phase().status());
        life.finish(End::Canceled);
        statuses.push(life.phase().status());
        life.publish(ended(Status::Canceled));
        statuses.push(life.phase().status());
        let [starting, processing, canceled] = [Status::Starting, Status::Processing, Status::Canceled];
        assert_eq!(statuses, [starting, starting, processing, processing, processing, canceled]);

        let mut waits = Lifecycle::queued(0);
        waits.finish(End::Canceled);
        assert_eq!(waits.phase().status(), starting, "no worker ever began");
    }

    #[test]
    fn the_last_follower_stops_it_only_if_it_depends_on_them() {
        let mut life = Lifecycle::queued(0);
        life.follow(false);
        assert!(!life.unfollow());
        life.follow(true);
        life.follow(false);
        assert!(!life.unfollow());
        assert!(life.unfollow());
    }
}
