//! What is shown of a prediction on its way.

use protocol::Work;
use serde_json::json;
use uuid::Uuid;

use super::attempt::MAX_LOGS;
use super::*;
use crate::store::record_of;

fn claim() -> Claim {
    Claim { seq: 7, token: Uuid::new_v4() }
}

/// A prediction that was accepted and claimed.
fn active() -> ActivePrediction {
    let active = ActivePrediction::new(record_of("a", &json!({"prompt": "a"}), 0), 10, Span::none());
    assert!(active.stored(7));
    assert!(active.claim(claim(), 1));
    active
}

#[test]
fn what_is_left_is_what_the_rest_takes_at_the_pace_so_far() {
    let active = active();
    active.begin(0, "1".to_owned(), Time::now(), None).unwrap();
    for (seconds, fraction, expected) in [
        (0.0, 0.0, (0.0, None)),
        (10.0, 0.25, (0.25, Some(30.0))),
        (20.0, 0.5, (0.5, Some(20.0))),
        (30.0, 0.8, (0.8, Some(7.5))),
        (36.0, 1.0, (1.0, Some(0.0))),
        (36.0, 7.0, (1.0, Some(0.0))),
        (1.0, -1.0, (0.0, None)),
        (1.0, f64::NAN, (0.0, None)),
    ] {
        active.progress(1, 4, seconds, fraction);
        let Metrics { progress, seconds_left, .. } = active.snapshot().metrics;
        assert_eq!(progress, Some(expected.0));
        assert!(
            seconds_left.zip(expected.1).map_or(seconds_left == expected.1, |(is, to_be)| (is - to_be).abs() < 1e-9),
            "{seconds_left:?} after {seconds} s at {fraction}"
        );
        assert_eq!(active.seconds_left(), seconds_left);
        assert_eq!(active.progress_share(), expected.0);
    }
}

#[test]
fn every_step_has_its_line_once() {
    let active = active();
    active.begin(0, "1".to_owned(), Time::now(), None).unwrap();
    for (step, lines) in [(0, 0), (1, 1), (1, 1), (3, 3), (9, 4)] {
        active.progress(step, 4, 1.0, 0.1);
        let snapshot = active.snapshot();
        assert_eq!((snapshot.logs.lines().count(), snapshot.metrics.step), (lines, Some(step.min(4))));
    }
    assert_eq!(active.snapshot().metrics.steps, Some(4));
}

#[test]
fn a_worker_makes_no_more_of_a_prediction_than_was_asked_for() {
    let active = active();
    active.begin(0, "1".to_owned(), Time::now(), None).unwrap();
    for step in [u32::MAX, 0, u32::MAX, 1, 50] {
        active.progress(step, u32::MAX, 1.0, 0.1);
    }
    let snapshot = active.snapshot();
    assert_eq!((snapshot.metrics.steps, snapshot.logs.lines().count()), (Some(50), 50));
    for _ in 0..2000 {
        active.log_of_worker(&"x".repeat(1000));
    }
    active.log_of_worker("");
    let logs = active.logs();
    assert!((MAX_LOGS - 1100..MAX_LOGS + 100).contains(&logs.len()), "{}", logs.len());
    assert!(logs.ends_with("further lines of the worker are left out\n"));
}

#[test]
fn times_are_measured_from_acceptance_and_from_the_start() {
    let mut record = active().accepted().clone();
    let created = Time::from_micros(Time::now().micros() - 90_000_000);
    record.prediction.created_at = created;
    let active = ActivePrediction::new(record, 10, Span::none());
    assert_eq!(active.seq(), 0);
    assert!(active.stored(7) && active.seq() == 7);
    let started = Time::now();
    assert!(active.begin(0, "1".to_owned(), started, None).is_none(), "it is not claimed yet");
    let claim = claim();
    assert!(active.claim(claim, 2) && active.attempts() == 2);
    let queue_time = active.begin(0, "1".to_owned(), started, None).unwrap();
    assert!((90.0..95.0).contains(&queue_time), "{queue_time}");
    assert_eq!(active.snapshot().metrics.queue_time, Some(queue_time));
    assert_eq!(active.snapshot().started_at, Some(started));
    active.progress(1, 4, 1.0, 0.25);
    assert!(active.computed());
    let (under, ended) = active.finish(End::Succeeded { output: "data:,".into(), work: Work::default() }).unwrap();
    assert_eq!(under, claim);
    let (at, metrics) = (ended.completed_at.unwrap(), &ended.metrics);
    assert_eq!(metrics.total_time, Some(at.since(created)));
    assert_eq!(metrics.predict_time, Some(at.since(started)));
    assert_eq!((metrics.progress, metrics.seconds_left), (Some(1.0), None));
    assert!(active.finish(End::Canceled).is_none(), "once");
    let record = active.record_of(&ended, None);
    let stored = (record.prediction.output, record.seq, record.attempts);
    assert_eq!(stored, (None, 7, 2), "the picture lies beside it");
    let url = Prediction { output: Some(Output::Whole("http://x/files/y.png".into())), ..ended.clone() };
    let record = active.record_of(&url, Some("y.png".to_owned()));
    assert_eq!((record.prediction.output, record.file), (url.output, Some("y.png".to_owned())));
    assert_eq!(active.snapshot().status, Status::Processing, "nothing is shown before it is stored");
    active.publish_end(ended.clone());
    assert_eq!(active.snapshot(), ended);
}

#[test]
fn what_lost_its_worker_begins_from_the_start() {
    let active = active();
    active.begin(0, "1".to_owned(), Time::now(), None).unwrap();
    active.progress(1, 4, 1.0, 0.25);
    assert!(active.release(Some("exit status: 3")).is_some());
    let snapshot = active.snapshot();
    assert_eq!((snapshot.status, snapshot.started_at), (Status::Starting, None));
    assert_eq!(snapshot.metrics, Metrics::default());
    assert!(snapshot.logs.ends_with("the worker was lost (exit status: 3); trying once more\n"));
    assert_eq!(active.logs(), snapshot.logs);
    assert!(!active.request_stop(Stop::Canceled, false), "it waits, and the store is to stop it");
    assert!(active.claim(claim(), 2));
    assert!(active.begin(0, "2".to_owned(), Time::now(), None).is_some());
    assert!(active.request_stop(Stop::Canceled, false) && active.stopping.is_cancelled());
    assert!(active.release(Some("exit status: 3")).is_none(), "it is to stop");
}

#[test]
fn what_was_stopped_before_its_claim_came_does_not_begin() {
    let mut record = active().accepted().clone();
    record.prediction.logs = "of an earlier process\n".to_owned();
    let active = ActivePrediction::resume(record, true, Feed::new(10), Span::none());
    assert!(active.request_stop(Stop::Canceled, true));
    assert!(active.claim(claim(), 1));
    assert!(active.begin(0, "1".to_owned(), Time::now(), None).is_none());
    let (_, ended) = active.finish(End::Failed("why".to_owned())).unwrap();
    assert_eq!((ended.status, ended.error), (Status::Canceled, None));
    assert_eq!((ended.logs.as_str(), ended.metrics.predict_time), ("of an earlier process\n", Some(0.0)));
}

#[tokio::test]
async fn a_phase_can_be_waited_for() {
    let active = Arc::new(active());
    let waits = tokio::spawn({
        let active = Arc::clone(&active);
        async move { active.until(Phase::is_over).await }
    });
    active.begin(0, "1".to_owned(), Time::now(), None).unwrap();
    let (_, ended) = active.finish(End::Failed("why".to_owned())).unwrap();
    active.publish_end(ended);
    assert!(matches!(waits.await.unwrap(), Phase::Ended(ended) if ended.error.as_deref() == Some("why")));
}
