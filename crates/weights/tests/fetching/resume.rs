//! Connections that break, and what was received before.

use std::fs;
use std::time::Duration;

use tests::hub::{Fault, MODEL, UNET, model, noise};
use weights::LOCK;

use crate::case::Case;

#[tokio::test]
async fn dropped_connections_are_resumed_where_they_broke() {
    let case = Case::new().await;
    // More drops than attempts: each brings something.
    case.hub.fail(UNET, &[100_000, 500_000, 1, 900_000, 7].map(Fault::Drop));
    case.hub.fail("unet/config.json", &[Fault::Drop(5)]);
    case.fetch().await.unwrap();
    case.complete("c1");
    assert_eq!(case.hub.offsets(UNET), [0, 100_000, 600_000, 600_001, 1_500_001, 1_500_008]);
    assert_eq!(case.hub.served(UNET), 3_000_000, "no byte came twice");
    assert!(case.notes().contains("trying again in"), "{}", case.notes());
}

#[tokio::test]
async fn an_interrupted_fetch_goes_on_with_the_rest() {
    let case = Case::new().await;
    case.hub.fail(UNET, &[Fault::Stall(1_200_000)]);
    let stopped = tokio::time::timeout(Duration::from_secs(4), case.fetch()).await;
    assert!(stopped.is_err(), "the fetch was dropped while it waited");
    assert!(!case.path(UNET).exists() && !case.path(LOCK).exists());
    let done = case.path("text_encoder/model.safetensors");
    assert!(done.exists());
    while fs::metadata(case.part(UNET)).unwrap().len() < 1_200_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    case.hub.calm();
    case.fetch().await.unwrap();
    case.complete("c1");
    assert_eq!(case.hub.offsets(UNET), [1_200_000]);
    assert_eq!(case.hub.served(UNET), 1_800_000);
    assert_eq!(case.hub.served("text_encoder/model.safetensors"), 0);
    assert_eq!(case.hub.served("model.safetensors"), 0, "VGG16 was there");
}

#[tokio::test]
async fn a_hub_that_drops_for_ever_is_given_up() {
    let case = Case::new().await;
    case.hub.fail(UNET, &[Fault::Drop(1000), Fault::Drop(0), Fault::Drop(0), Fault::Drop(0), Fault::Drop(0)]);
    let message = case.refused().await;
    assert!(message.contains(UNET) && message.contains("what was received is kept"), "{message}");
    assert_eq!(fs::metadata(case.part(UNET)).unwrap().len(), 1000);
    assert!(!case.path(UNET).exists() && !case.path(LOCK).exists());
}

#[tokio::test]
async fn what_changed_meanwhile_is_fetched_again() {
    let case = Case::new().await;
    case.hub.fail(UNET, &[Fault::Drop(2_000_000), Fault::Status(403, None), Fault::Status(500, None), Fault::Drop(0)]);
    assert!(case.refused().await.contains("500"));
    assert!(case.part(UNET).exists());
    let mut files = model();
    files.insert(UNET.to_owned(), noise(2_500_000, 9));
    files.insert("unet/config.json".to_owned(), "{}".into());
    case.hub.put(MODEL, "c2", files);
    case.hub.calm();
    case.fetch().await.unwrap();
    case.complete("c2");
    assert_eq!(case.hub.offsets(UNET), [0]);
    assert_eq!(fs::read_to_string(case.path("unet/config.json")).unwrap(), "{}");
}

#[tokio::test]
async fn what_was_kept_and_spoilt_is_fetched_again() {
    let case = Case::new().await;
    case.hub.fail(UNET, &[Fault::Drop(2_000_000), Fault::Drop(0), Fault::Drop(0), Fault::Drop(0)]);
    case.refused().await;
    let mut bytes = fs::read(case.part(UNET)).unwrap();
    bytes[77] ^= 1;
    fs::write(case.part(UNET), bytes).unwrap();
    case.hub.calm();
    case.fetch().await.unwrap();
    case.complete("c1");
    assert_eq!(case.hub.offsets(UNET), [2_000_000, 0]);
    assert!(case.notes().contains("fetching all of it again"));
}

#[tokio::test]
async fn a_hub_without_ranges_is_enough() {
    let case = Case::new().await;
    case.hub.fail(UNET, &[Fault::Drop(2_000_000), Fault::NoRange]);
    case.fetch().await.unwrap();
    case.complete("c1");
    assert_eq!(case.hub.served(UNET), 5_000_000);
}
