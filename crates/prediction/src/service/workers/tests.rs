use serde_json::{Value, json};

use super::*;
use crate::feed::Feed;
use crate::store::record_of;
use crate::worker::Program;

fn active(id: &str) -> Arc<ActivePrediction> {
    active_of(id, &json!({"prompt": "a"}))
}

fn active_of(id: &str, input: &Value) -> Arc<ActivePrediction> {
    Arc::new(ActivePrediction::resume(record_of(id, input, 1), true, Feed::new(0), tracing::Span::none()))
}

#[test]
fn the_least_busy_worker_gets_the_next_job_and_a_suspect_one_for_itself() {
    let mut workers = Workers::new(3);
    assert_eq!((workers.choose(false), workers.free(), workers.share()), (None, 0, 1));
    workers.slot(1).ready(2);
    workers.slot(2).ready(2);
    assert_eq!((workers.choose(false), workers.free(), workers.share()), (Some(1), 4, 2));
    let job = workers.next_job();
    workers.run(1, job.clone(), active("a"), false);
    assert_eq!((workers.choose(false), workers.choose(true), workers.free()), (Some(2), Some(2), 3));
    let alone = workers.next_job();
    assert_ne!(job, alone);
    workers.run(2, alone.clone(), active("b"), true);
    assert_eq!((workers.choose(false), workers.choose(true), workers.free()), (Some(1), None, 1));
    let (ended, beside) = workers.slot(2).complete(&alone, true).unwrap();
    assert_eq!((ended.id(), beside, workers.choose(true)), ("b", 0, Some(2)));
    assert!(workers.slot(2).complete(&alone, true).is_none(), "once");
}

#[test]
fn a_worker_that_falls_by_itself_is_started_with_growing_waits_and_then_given_up() {
    let mut slot = WorkerSlot::default();
    slot.ready(1);
    let waits: Vec<_> = (0..MAX_FALLS).map(|_| slot.exited("gone".to_owned()).restart_after).collect();
    let expected = [200, 400, 800, 1600].map(|ms| Some(Duration::from_millis(ms)));
    assert_eq!((&waits[..4], waits[4]), (&expected[..], None));
    assert_eq!(slot.state, WorkerState::Dead("gone".to_owned()));
    let mut workers = Workers { slots: vec![slot, WorkerSlot::default()], last_job: 0 };
    assert_eq!(workers.why_lost(), None, "one still loads");
    workers.slot(1).exited("no device".to_owned());
    assert_eq!(workers.why_lost(), Some("gone"));

    let mut slot = WorkerSlot::default();
    slot.ready(1);
    slot.exited("gone".to_owned());
    slot.run("1".to_owned(), active("a"), false);
    let exit = slot.exited("gone".to_owned());
    assert_eq!((exit.restart_after, exit.held.len()), (Some(Duration::ZERO), 1), "a job brought it down");
    assert!(slot.accepts_work() && slot.free() == 0);
}

#[test]
fn a_worker_that_cannot_load_is_not_started_again() {
    let mut slot = WorkerSlot::default();
    let exit = slot.exited("exit status: 9".to_owned());
    let error = "the worker ended while it loaded: exit status: 9".to_owned();
    assert_eq!((exit.load_error, exit.restart_after), (Some(error.clone()), None));
    assert_eq!(slot.state, WorkerState::LoadFailed(error));

    let mut slot = WorkerSlot { state: WorkerState::LoadFailed("no model".to_owned()), ..WorkerSlot::default() };
    assert_eq!(slot.exited("exit status: 1".to_owned()).load_error, None, "it has said so itself");
    assert_eq!(slot.state, WorkerState::LoadFailed("no model".to_owned()));
    let workers = Workers { slots: vec![slot], last_job: 0 };
    assert!(workers.are_gone() && !Workers::new(1).are_gone());
    assert_eq!(workers.why_lost(), None, "none was there to be lost");
}

#[test]
fn a_worker_that_was_sent_nothing_may_be_silent_and_ends_by_itself() {
    let (load, hang) = (Duration::from_hours(1), Duration::from_hours(3));
    let arguments = vec!["-c".into(), "exec sleep 1000".into()];
    let program = Program { path: "/bin/sh".into(), arguments, environment: Vec::new() };
    let mut slot = WorkerSlot::default();
    slot.attach(program.spawn(|_| ()).unwrap());
    slot.ready(2);
    let reads = active_of("reads", &json!({"prompt": "a", "image": "https://a/b"}));
    slot.run("1".to_owned(), Arc::clone(&reads), false);
    assert_eq!((slot.patience(load, hang), slot.free()), (None, 1), "its pictures are being read");
    slot.run("2".to_owned(), active("draws"), false);
    assert!(slot.patience(load, hang).is_some_and(|patience| patience > load));
    slot.complete("2", false).unwrap();
    assert_eq!(slot.patience(load, hang), None);
    let exit = slot.exited("gone".to_owned());
    assert_eq!((exit.held.len(), exit.unsent.len(), exit.falls), (0, 1, 1), "no job brought it down");

    slot.attach(program.spawn(|_| ()).unwrap());
    slot.ready(2);
    slot.run("3".to_owned(), Arc::clone(&reads), false);
    slot.start("3".to_owned(), &reads, Vec::new(), Vec::new());
    assert!(slot.patience(load, hang).is_some_and(|patience| patience > load));
    let exit = slot.exited("gone".to_owned());
    assert_eq!((exit.held.len(), exit.unsent.len(), exit.falls), (1, 0, 0));
}
