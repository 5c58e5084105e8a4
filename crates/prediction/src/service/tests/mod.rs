//! The service with workers that are not there: their events are made up here. The clock of tokio is paused, so nothing
//! depends on how fast the machine is.

mod flaky;
mod left;
mod reading;

use std::sync::atomic::Ordering;

use protocol::{Event, Work};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tracing::Span;

use super::*;
use crate::feed;
use crate::given_pictures::Fitting;
use crate::lifecycle::Phase;
use crate::output::Wanted;
use crate::store::{About, Beat, Memory};
use crate::webhook::signature::Secret;
use crate::wire::{Output, Status};
use flaky::Flaky;

fn options() -> Options {
    Options {
        queue_size: 5,
        queue_seconds: None,
        max_predict: None,
        hang: Duration::MAX,
        load: Duration::MAX,
        retention: crate::store::Retention::default(),
        own_model: false,
        accept_without_workers: false,
        dtype: None,
        lease: Duration::from_secs(15),
        webhooks: crate::webhook::Options {
            interval: Duration::from_millis(500),
            token: None,
            secret: Secret::random().unwrap(),
            translate: None,
        },
        place: crate::upload::Place::default(),
        metadata: false,
        gate: Gate::new(true),
        stream_history: 100,
    }
}

/// A service with one worker, which advances `jobs` at once.
async fn service(jobs: u32) -> (Service, Arc<Flaky>) {
    service_with(jobs, options()).await
}

async fn service_with(jobs: u32, options: Options) -> (Service, Arc<Flaky>) {
    // The clients of webhooks and pictures need it.
    crate::install_crypto();
    let store = Arc::new(Flaky::default());
    let shared = Service::prepare(Arc::clone(&store) as Arc<dyn Store>, options, 1).await.unwrap();
    shared.table().workers.slot(0).ready(jobs);
    (Service { shared }, store)
}

fn request(id: &str) -> Request {
    Request {
        id: Some(id.to_owned()),
        name: String::new(),
        input: crate::input::parse(&json!({"prompt": id, "width": 512, "height": 512}), None).unwrap().input,
        sent: crate::input::Sent::default(),
        webhook: None,
        output_file_prefix: None,
        fitting: Fitting::default(),
        wanted: Wanted::default(),
        base: "http://localhost:5000".to_owned(),
        cancel_after: None,
        detached: true,
        idempotent: false,
        key: None,
        asker: None,
        span: Span::none(),
    }
}

impl Service {
    async fn new_ticket(&self, request: Request) -> Ticket {
        let Submitted::New(ticket) = self.submit(request).await.unwrap() else { panic!("it was there before") };
        ticket
    }

    /// Waits until a worker has it, and returns the job.
    async fn job(&self, id: &str) -> String {
        let active = self.shared.active(id).unwrap();
        match active.until(|phase| matches!(phase, Phase::Running { .. })).await {
            Phase::Running { job, .. } => job,
            phase => panic!("{phase:?}"),
        }
    }

    /// The worker is done with a job.
    fn done(&self, job: String) {
        let (width, height, work) = (512, 512, Work { unet_forwards: 26, ..Work::default() });
        let done = Event::Done { job, width, height, seconds: 1.0, work, peak_memory_bytes: 0, figures: Vec::new() };
        self.shared.on_event(0, done, vec![7; 3 * 512 * 512]);
    }

    async fn status(&self, id: &str) -> Option<Status> {
        self.get(id).await.unwrap().map(|prediction| prediction.status)
    }
}

/// Takes the first node for dead, by another.
async fn reap(other: &Memory) {
    let Beat::Alive { nodes, .. } = other.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    assert!(other.reap(nodes[0].node, nodes[0].beat).await.unwrap());
}

/// Lets everything happen that is to happen at once.
async fn settled() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_stored_is_stored_later_and_published_only_then() {
    let (service, store) = service(1).await;
    let mut ticket = service.new_ticket(request("a")).await;
    let mut follower = service.follow("a", 0).await.unwrap().unwrap();
    let job = service.job("a").await;
    let writes = store.writes.load(Ordering::SeqCst);
    store.fail(5);
    service.done(job);
    // A picture is encoded on a thread, for which the paused clock waits.
    while store.writes.load(Ordering::SeqCst) == writes {
        settled().await;
    }
    assert_eq!(service.status("a").await, Some(Status::Processing));
    assert!(timeout(Duration::from_millis(1), ticket.end()).await.is_err(), "nobody hears of it");
    let health = service.health();
    assert_eq!(health.status, State::Unhealthy);
    assert!(health.user_healthcheck_error.unwrap().contains("no room left"));
    let refused = service.submit(request("b")).await.unwrap_err();
    assert!(matches!(&refused, Refused::Trouble(why) if why.contains("no room left")), "{refused}");
    assert!(matches!(service.submit(request("a")).await, Err(Refused::Exists(_))), "what is known is known");

    let begun = Instant::now();
    let ended = ticket.end().await.unwrap();
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(ended.status, Status::Succeeded);
    assert!(matches!(&ended.output, Some(Output::Whole(text)) if text.starts_with("data:image/png;base64,")));
    assert_eq!(service.get("a").await.unwrap().as_ref(), Some(&*ended), "what is published is what is stored");
    assert!(service.picture("a", 0, None).await.unwrap().is_some());
    let mut ends = 0;
    while let Some(news) = follower.next().await {
        let News::Item(item) = news else { panic!("{news:?}") };
        ends += u32::from(matches!(item.event, feed::Event::Completed(_)));
    }
    assert_eq!(ends, 1);
    assert_eq!(service.health().status, State::Ready);
    service.new_ticket(request("b")).await;
}

#[tokio::test(start_paused = true)]
async fn previews_are_for_those_who_watch() {
    let (service, _) = service(1).await;
    let _ticket = service.new_ticket(request("a")).await;
    let job = service.job("a").await;
    let mut watching = service.follow("a", 0).await.unwrap().unwrap().watching();
    let mut other = service.follow("a", 0).await.unwrap().unwrap();
    let preview = Event::Preview { job: job.clone(), step: 3, width: 8, height: 4 };
    service.shared.on_event(0, preview, vec![7; 3 * 8 * 4]);
    let seen = loop {
        if let Some(News::Preview(preview)) = watching.next().await {
            break preview;
        }
    };
    assert_eq!((seen.step, seen.width, seen.height), (3, 8, 4));
    assert!(seen.image.starts_with("data:image/png;base64,iVBOR"));
    service.done(job);
    while let Some(news) = other.next().await {
        assert!(matches!(news, News::Item(_)), "{news:?}");
    }
    assert!(service.get("a").await.unwrap().unwrap().output.is_some(), "the preview is not its output");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_ever_has_no_end_published_and_does_not_keep_the_server() {
    let (service, store) = service(1).await;
    let mut ticket = service.new_ticket(request("a")).await;
    let waits = service.new_ticket(request("b")).await;
    let job = service.job("a").await;
    store.fail(u32::MAX);
    service.shared.on_event(0, Event::Failed { job, error: "why".to_owned(), fatal: false }, Vec::new());
    assert!(timeout(Duration::from_hours(1), ticket.end()).await.is_err());
    assert_eq!(
        (service.status("a").await, service.status("b").await),
        (Some(Status::Processing), Some(Status::Processing))
    );
    let tried = store.writes.load(Ordering::SeqCst);
    assert!((1000..4000).contains(&tried), "{tried} attempts in an hour");
    assert!(service.cancel("a").await.is_err() && service.delete("a").await.is_err());
    let begun = Instant::now();
    service.close(Duration::ZERO).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(waits.snapshot().await.status, Status::Starting);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_stored_before_it_is_answered() {
    let (service, store) = service(1).await;
    let mut runs = service.new_ticket(request("runs")).await;
    let job = service.job("runs").await;
    let mut waits = service.new_ticket(request("waits")).await;
    store.fail(2);
    for id in ["runs", "waits"] {
        assert!(service.cancel(id).await.is_err());
        assert!(!service.shared.active(id).unwrap().stopping.is_cancelled(), "what is not stored is not done");
    }
    for id in ["runs", "waits"] {
        assert!(service.cancel(id).await.unwrap());
    }
    assert_eq!(waits.end().await.unwrap().status, Status::Canceled);
    assert!(!service.cancel("waits").await.unwrap());
    // The worker was quicker than the cancel: what was answered counts.
    service.done(job);
    let ended = runs.end().await.unwrap();
    assert_eq!((ended.status, &ended.output), (Status::Canceled, &None));
    assert_eq!(service.get("runs").await.unwrap().as_ref(), Some(&*ended));
    assert!(!service.cancel("unknown").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_its_client_left_is_stopped_as_soon_as_the_store_works() {
    let (service, store) = service(1).await;
    let first = service.new_ticket(request("first")).await;
    let job = service.job("first").await;
    let waits = service.new_ticket(Request { detached: false, ..request("waits") }).await;
    let shared = Arc::clone(&service.shared);
    let active = shared.active("waits").unwrap();
    store.fail(3);
    drop(waits);
    sleep(Duration::from_millis(150)).await;
    assert!(matches!(active.phase(), Phase::Queued));
    assert!(matches!(active.until(Phase::is_over).await, Phase::Ended(ended) if ended.status == Status::Canceled));
    let deadline = Request { cancel_after: Some(Duration::from_secs(5)), ..request("late") };
    let mut late = service.new_ticket(deadline).await;
    let begun = Instant::now();
    assert_eq!(late.end().await.unwrap().status, Status::Canceled);
    assert!(begun.elapsed().as_secs_f64().round() == 5.0, "{:?}", begun.elapsed());
    drop(first);
    service.done(job);
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_gives_back_once_and_in_order() {
    let (service, _) = service(2).await;
    let mut tickets = Vec::new();
    for id in ["a", "b", "c"] {
        tickets.push(service.new_ticket(request(id)).await);
    }
    service.job("b").await;
    for attempt in 1..=2 {
        let restart = service.shared.on_exit(0, "exit status: 3".to_owned());
        assert_eq!(restart, Some(Duration::ZERO), "a job brought it down");
        settled().await;
        assert_eq!(service.status("a").await, Some(if attempt == 1 { Status::Starting } else { Status::Failed }));
        service.shared.table().workers.slot(0).ready(2);
        service.shared.wake();
        settled().await;
        // What has lost a worker runs alone, and nothing passes it.
        let running = service.shared.table().workers.running().map(|active| active.id().to_owned()).collect::<Vec<_>>();
        assert_eq!(running, [["a"], ["b"]][attempt - 1]);
    }
    let ended = tickets[0].end().await.unwrap();
    assert_eq!(
        ended.error.as_deref(),
        Some("the worker was lost 2 times while it made this prediction: exit status: 3")
    );
    assert!(ended.logs.contains("the worker was lost (exit status: 3); trying once more"));
    for id in ["b", "c"] {
        service.done(service.job(id).await);
    }
    for ticket in &mut tickets[1..] {
        assert_eq!(ticket.end().await.unwrap().status, Status::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_without_its_claim_is_dropped() {
    let (service, store) = service(1).await;
    let mut ticket = service.new_ticket(request("a")).await;
    let job = service.job("a").await;
    // Another node takes this one for dead, and the prediction over.
    let other = store.join();
    reap(&other).await;
    service.done(job);
    assert!(ticket.end().await.is_none());
    let stored = other.get("a").await.unwrap().unwrap().record.prediction;
    assert_eq!((stored.status, stored.output), (Status::Starting, None));
}

#[tokio::test(start_paused = true)]
async fn of_many_at_once_exactly_as_many_are_accepted_as_there_is_room_for() {
    for round in 0..20 {
        let (service, _) = service(1).await;
        let submit = |n: usize| {
            let service = service.clone();
            tokio::spawn(async move {
                for _ in 0..(n * 7 + round) % 5 {
                    tokio::task::yield_now().await;
                }
                service.submit(Request { idempotent: n.is_multiple_of(2), ..request(&n.to_string()) }).await
            })
        };
        let submits: Vec<_> = (0..40).map(submit).collect();
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for submitted in submits {
            let submitted = submitted.await.unwrap();
            if submitted.is_ok() { &mut accepted } else { &mut refused }.push(submitted);
        }
        assert_eq!(accepted.len(), 6, "one begins at once, and five wait");
        assert!(refused.iter().all(|refused| matches!(refused, Err(Refused::Full { .. }))));
        assert_eq!(service.counts().waiting, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_gives_back_what_runs_uncounted_and_writes_nothing_for_what_waits() {
    let (service, store) = service(1).await;
    let mut tickets = Vec::new();
    for n in 0..5 {
        tickets.push(service.new_ticket(request(&n.to_string())).await);
    }
    service.job("0").await;
    let writes = store.writes.load(Ordering::SeqCst);
    service.close(Duration::ZERO).await;
    assert_eq!(store.writes.load(Ordering::SeqCst), writes);
    for ticket in &mut tickets {
        assert!(ticket.end().await.is_none(), "it waits for the next server");
        assert_eq!(ticket.snapshot().await.status, Status::Starting);
    }
    let given_back = store.get("0").await.unwrap().unwrap().record;
    assert_eq!((given_back.attempts, given_back.prediction.status), (0, Status::Starting));
    assert!(matches!(service.submit(request("late")).await, Err(Refused::Closing)));
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_process_left_is_continued() {
    let (first, store) = service(1).await;
    for id in ["a", "b"] {
        first.new_ticket(request(id)).await;
    }
    first.job("a").await;
    let second = store.join();
    reap(&second).await;
    let shared = Service::prepare(Arc::new(second), options(), 1).await.unwrap();
    let service = Service { shared };
    assert!(service.is_active("a") && service.is_active("b"));
    let place = |id: &'static str| {
        let service = service.clone();
        async move { service.get(id).await.unwrap().unwrap().metrics.queue_position }
    };
    assert_eq!((place("a").await, place("b").await), (Some(0), Some(1)));
    service.shared.table().workers.slot(0).ready(1);
    service.shared.wake();
    let job = service.job("a").await;
    assert_eq!(service.shared.active("a").unwrap().attempts(), 2);
    service.done(job);
    service.job("b").await;
    let listed: Value =
        serde_json::to_value(service.list(Query { limit: 9, ..Query::default() }).await.unwrap()).unwrap();
    assert_eq!((&listed[0][1]["id"], &listed[0][1]["status"]), (&json!("b"), &json!("processing")));
}

/// What is done for dead nodes may wait for the disk of the store, and for its standby.
#[tokio::test]
async fn beats_do_not_wait_for_what_follows_from_them() {
    let (_service, store) = service_with(1, Options { lease: Duration::from_millis(600), ..options() }).await;
    let other = store.join();
    let beat = async || {
        let Beat::Alive { nodes, .. } = other.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
        nodes[0].beat
    };
    beat().await;
    store.is_stuck.store(true, Ordering::SeqCst);
    let _dead = store.join();
    while store.asked.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let before = beat().await;
    while beat().await < before + 5 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.asked.load(Ordering::SeqCst), 1, "one after the other");
}
