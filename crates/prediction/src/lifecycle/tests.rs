//! Random walks through the phases, and some that are not random.

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::wire::tests::accepted;

#[derive(Clone, Debug)]
enum Step {
    Stored,
    Refuse,
    Known,
    Claim,
    Begin,
    Release,
    Computed,
    Watch,
    WaitAgain,
    Lose,
    Leave,
    Stop(Stop, bool),
    Finish(End),
    Publish(Status),
    Follow(bool),
    Unfollow,
}

fn step() -> impl Strategy<Value = Step> {
    let picture = End::Succeeded { output: "data:,".into(), work: Work::default() };
    let ends = prop::sample::select(vec![picture, End::Failed("why".to_owned()), End::Canceled]);
    let statuses = prop::sample::select(Status::ALL.to_vec());
    let stops = prop::sample::select(vec![Stop::Canceled, Stop::TooLong(1.0)]);
    prop_oneof![
        4 => Just(Step::Stored),
        1 => Just(Step::Refuse),
        1 => Just(Step::Known),
        6 => Just(Step::Claim),
        6 => Just(Step::Begin),
        3 => Just(Step::Release),
        3 => Just(Step::Computed),
        2 => Just(Step::Watch),
        1 => Just(Step::WaitAgain),
        1 => Just(Step::Lose),
        1 => Just(Step::Leave),
        1 => (stops, any::<bool>()).prop_map(|(stop, stored)| Step::Stop(stop, stored)),
        3 => ends.prop_map(Step::Finish),
        3 => statuses.prop_map(Step::Publish),
        1 => any::<bool>().prop_map(Step::Follow),
        1 => Just(Step::Unfollow),
    ]
}

fn ended(status: Status) -> Arc<Prediction> {
    Arc::new(Prediction { status, ..accepted("a", &json!({"prompt": "a"})) })
}

fn new_claim() -> Claim {
    Claim { seq: 1, token: Uuid::new_v4() }
}

/// How far along a phase is: nothing but a release may lead back.
fn rank(phase: &Phase) -> u32 {
    match phase {
        Phase::Storing => 0,
        Phase::Queued | Phase::Watched => 1,
        Phase::Claimed { .. } => 2,
        Phase::Running { .. } => 3,
        Phase::Delivering { .. } => 4,
        Phase::Finishing { .. } => 5,
        Phase::Ended(_) | Phase::Elsewhere | Phase::Refused(_) => 6,
    }
}

/// Which changes are allowed, said in other words than the code says it.
fn allowed(step: &Step, before: &Phase, stops: bool) -> bool {
    match (step, rank(before)) {
        (Step::Stored | Step::Refuse | Step::Known, at) => at == 0,
        (Step::Claim, at) => at <= 1,
        (Step::Begin, at) => at == 2 && !stops,
        (Step::Release, at) => (at == 2 || at == 3) && !stops,
        (Step::Computed, at) => at == 3,
        (Step::Watch, at) => at == 1,
        (Step::WaitAgain, _) => matches!(before, Phase::Watched),
        (Step::Lose, at) => (2..=5).contains(&at),
        (Step::Leave, at) => at == 1 || at == 5,
        (Step::Stop(_, stored), at) => (2..=4).contains(&at) || (*stored && at == 1),
        (Step::Finish(_), at) => (2..=4).contains(&at),
        (Step::Publish(status), at) => (at == 1 || at == 5) && status.is_terminal(),
        (Step::Follow(_) | Step::Unfollow, _) => true,
    }
}

proptest! {
    #[test]
    fn whatever_happens_a_prediction_ends_once_and_stays_so(
        resumed in prop::option::of(0_u32..2),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut life = resumed.map_or_else(Lifecycle::storing, Lifecycle::queued);
        let (mut stored, mut ends, mut claimed) = (resumed.is_some(), 0, None);
        for step in steps {
            let (before, stop, attempts) = (life.phase.clone(), life.stop.clone(), life.attempts);
            let done = match step.clone() {
                Step::Stored => life.stored(),
                Step::Refuse => life.refuse("full".to_owned()),
                Step::Known => life.known(ended(Status::Failed)),
                Step::Claim => {
                    let claim = new_claim();
                    let done = life.claim(claim, attempts + 1);
                    claimed = if done { Some(claim) } else { claimed };
                    done
                }
                Step::Begin => life.begin(1, "j".to_owned()),
                Step::Release => {
                    let released = life.release();
                    prop_assert!(released.is_none() || released == claimed);
                    released.is_some()
                }
                Step::Computed => life.computed(),
                Step::Watch => life.watch(attempts).is_some(),
                Step::WaitAgain => life.wait_again(),
                Step::Lose => {
                    let lost = life.lose();
                    prop_assert!(lost.is_none_or(|canceled| canceled == (stop == Some(Stop::Canceled))));
                    lost.is_some()
                }
                Step::Leave => life.leave(),
                Step::Stop(stop, stored) => life.request_stop(stop, stored),
                Step::Finish(end) => match (life.finish(end.clone()), &stop, &end) {
                    (None, ..) => false,
                    (Some((claim, decided)), stop, end) => {
                        prop_assert_eq!(Some(claim), claimed, "under the claim that it has");
                        match (decided, stop, end) {
                            (End::Canceled, Some(Stop::Canceled), _)
                            | (End::Failed(_), Some(Stop::TooLong(_)), End::Canceled) => {}
                            (decided, stop, end) => {
                                prop_assert!(*stop != Some(Stop::Canceled));
                                prop_assert_eq!(format!("{decided:?}"), format!("{end:?}"));
                            }
                        }
                        true
                    }
                },
                Step::Publish(status) => life.publish(ended(status)),
                Step::Follow(tie) => {
                    life.follow(tie);
                    true
                }
                Step::Unfollow => {
                    let last = life.unfollow();
                    prop_assert_eq!(last, life.cancel_when_unfollowed && life.followers == 0);
                    true
                }
            };
            prop_assert_eq!(done, allowed(&step, &before, stop.is_some()), "{:?} from {:?}", step, before);
            stored |= done && matches!(step, Step::Stored | Step::Claim);
            ends += u32::from(done && matches!(step, Step::Publish(_) | Step::Known));
            if !done || matches!(step, Step::Follow(_) | Step::Unfollow) {
                prop_assert_eq!(format!("{:?}", life.phase), format!("{before:?}"), "refused, and moved");
                prop_assert_eq!((&life.stop, life.attempts), (&stop, attempts));
            }
            let back = rank(&life.phase) < rank(&before);
            prop_assert!(!back || matches!(step, Step::Release | Step::Lose), "{:?} leads back from {:?}", step, before);
            prop_assert!(stop.is_none() || life.stop == stop, "the first reason stays");
            prop_assert_eq!(life.attempts, attempts + u32::from(done && matches!(step, Step::Claim)));
            prop_assert_eq!(life.phase.claim(), claimed.filter(|_| (2..=4).contains(&rank(&life.phase))));
            prop_assert_eq!(life.phase.status().is_terminal(), matches!(life.phase, Phase::Ended(_)));
            prop_assert!(stored || matches!(life.phase, Phase::Storing | Phase::Refused(_) | Phase::Ended(_)));
            prop_assert_eq!(life.phase.is_over(), rank(&life.phase) == 6);
            prop_assert!(ends <= 1);
        }
    }
}

#[test]
fn the_status_of_the_wire_follows_from_the_phase() {
    let [starting, processing, canceled] = [Status::Starting, Status::Processing, Status::Canceled];
    let mut life = Lifecycle::storing();
    let mut statuses = vec![life.phase().status()];
    let mut then = |life: &Lifecycle| statuses.push(life.phase().status());
    life.stored();
    then(&life);
    life.claim(new_claim(), 1);
    then(&life);
    life.begin(0, "1".to_owned());
    then(&life);
    life.computed();
    then(&life);
    life.finish(End::Canceled);
    then(&life);
    life.publish(ended(canceled));
    then(&life);
    assert_eq!(statuses, [starting, starting, starting, processing, processing, processing, canceled]);

    let mut claimed = Lifecycle::queued(0);
    claimed.claim(new_claim(), 1);
    claimed.finish(End::Canceled);
    assert_eq!(claimed.phase().status(), starting, "no worker ever began");
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
