//! Pictures that cannot be read for a worker.

use super::*;
use crate::input::Sent;
use crate::output;

fn with_picture(id: &str) -> Request {
    let mut sent = Sent::default();
    let picture = output::picture(&vec![7; 3 * 512 * 512], 512, 512, None).unwrap();
    let said = sent.insert_text("anchor_image", &output::data_uri(&picture));
    let input = json!({"prompt": id, "width": 512, "height": 512, "anchor_image": said});
    Request { input: crate::input::parse(&input, None).unwrap().input, sent, ..request(id) }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_while_pictures_are_read_for_it_costs_no_attempt() {
    let (service, store) = service(1).await;
    store.is_unreadable.store(true, Ordering::SeqCst);
    let mut ticket = service.new_ticket(with_picture("a")).await;
    for _ in 0..3 {
        service.job("a").await;
        let restart = service.shared.on_exit(0, "exit status: 3".to_owned());
        assert!(restart.is_some_and(|wait| wait > Duration::ZERO), "no job brought it down: {restart:?}");
        settled().await;
        assert_eq!(service.status("a").await, Some(Status::Starting));
        service.shared.table().workers.slot(0).ready(1);
        service.shared.wake();
        settled().await;
    }
    let job = service.job("a").await;
    assert_eq!(service.shared.active("a").unwrap().attempts(), 1);
    store.is_unreadable.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(2)).await;
    service.done(job);
    assert_eq!(ticket.end().await.unwrap().status, Status::Succeeded);
}
