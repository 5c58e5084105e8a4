//! What is shown of a prediction on its way.

use protocol::Work;
use serde_json::json;

use super::*;
use crate::wire::tests::accepted;

fn active() -> ActivePrediction {
    let prediction = accepted("a", &json!({"prompt": "a"}));
    let record =
        Record { prediction, seq: 1, attempts: 0, webhook: None, output_file_prefix: None, file: None, deadline: None };
    let active = ActivePrediction::new(record, 10, Span::none());
    assert!(active.stored());
    active
}

#[test]
fn what_is_left_is_what_the_rest_takes_at_the_pace_so_far() {
    let active = active();
    active.begin(0, "1".to_owned(), None).unwrap();
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
    active.begin(0, "1".to_owned(), None).unwrap();
    for (step, lines) in [(0, 0), (1, 1), (1, 1), (3, 3), (9, 4)] {
        active.progress(step, 4, 1.0, 0.1);
        let snapshot = active.snapshot();
        assert_eq!((snapshot.logs.lines().count(), snapshot.metrics.step), (lines, Some(step)));
    }
    assert_eq!(active.snapshot().metrics.steps, Some(4));
}

#[test]
fn times_are_measured_from_acceptance_and_from_the_start() {
    let mut record = active().accepted().clone();
    let created = Time::from_micros(Time::now().micros() - 90_000_000);
    record.prediction.created_at = created;
    let active = ActivePrediction::new(record, 10, Span::none());
    assert!(active.begin(0, "1".to_owned(), None).is_none(), "it is not stored yet");
    active.stored();
    let started = active.begin(0, "1".to_owned(), None).unwrap();
    assert_eq!((started.attempts, active.attempts()), (1, 1));
    assert!((90.0..95.0).contains(&started.queue_time), "{}", started.queue_time);
    assert_eq!(active.snapshot().metrics.queue_time, Some(started.queue_time));
    active.progress(1, 4, 1.0, 0.25);
    let ended = active.finish(End::Succeeded { output: "data:,".into(), work: Work::default() }).unwrap();
    let (at, metrics) = (ended.completed_at.unwrap(), &ended.metrics);
    assert_eq!(metrics.total_time, Some(at.since(created)));
    assert_eq!(metrics.predict_time, Some(at.since(started.at)));
    assert_eq!((metrics.progress, metrics.seconds_left), (Some(1.0), None));
    assert!(active.finish(End::Canceled).is_none(), "once");
    let record = active.record_of(&ended, None);
    assert_eq!((record.prediction.output, record.attempts), (None, 1), "the picture lies beside it");
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
    active.begin(0, "1".to_owned(), None).unwrap();
    active.progress(1, 4, 1.0, 0.25);
    assert!(active.requeue("exit status: 3"));
    let snapshot = active.snapshot();
    assert_eq!((snapshot.status, snapshot.started_at), (Status::Starting, None));
    assert_eq!(snapshot.metrics, Metrics::default());
    assert!(snapshot.logs.ends_with("the worker was lost (exit status: 3); trying once more\n"));
    assert_eq!(active.begin(0, "2".to_owned(), None).unwrap().attempts, 2);
    assert!(active.request_stop(Stop::Canceled) && active.stopping.is_cancelled());
    assert!(!active.requeue("exit status: 3"), "it is to stop");
    assert!(active.is_to_stop());
}

#[tokio::test]
async fn a_phase_can_be_waited_for() {
    let active = Arc::new(active());
    let waits = tokio::spawn({
        let active = Arc::clone(&active);
        async move { active.until(Phase::is_over).await }
    });
    active.begin(0, "1".to_owned(), None).unwrap();
    let ended = active.finish(End::Failed("why".to_owned())).unwrap();
    active.publish_end(ended);
    assert!(matches!(waits.await.unwrap(), Phase::Ended(ended) if ended.error.as_deref() == Some("why")));
}
