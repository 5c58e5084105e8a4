//! Hubs: what they do not have, who may see the token, and those that say no.

use tests::hub::{Fault, MODEL, TestHub, UNET, model};
use weights::{Error, Hub, RetryPolicy, Source};

use crate::case::{Case, all_files};

#[tokio::test]
async fn a_repository_that_is_gone_has_a_fallback_and_is_named() {
    let case = Case::new().await;
    case.hub.lock().repos.remove(MODEL);
    let message = case.refused().await;
    assert!(
        message.contains("Manojb/stable-diffusion-2-base") && message.contains("404") && message.contains("--from"),
        "{message}"
    );
    assert!(case.notes().contains(MODEL) && case.notes().contains("trying the next source"));
    assert_eq!(all_files(case.dir.path()), Vec::<String>::new(), "nothing was begun");
    case.hub.put("Manojb/stable-diffusion-2-base", "m1", model());
    assert_eq!(case.fetch().await.unwrap().lock.repo, "Manojb/stable-diffusion-2-base");
}

#[tokio::test]
async fn a_revision_or_a_file_that_does_not_exist_is_named() {
    let mut case = Case::new().await;
    case.request.sources = vec![Source::parse(MODEL, Some("v9")).unwrap()];
    let message = case.refused().await;
    assert!(message.contains("revision `v9`") && message.contains(MODEL), "{message}");
    case.request.sources = vec![Source::parse(MODEL, None).unwrap()];
    case.hub.fail("unet/config.json", &[Fault::Status(404, None)]);
    let message = case.refused().await;
    assert!(message.contains("file `unet/config.json` at `c1`"), "{message}");
    let mut files = model();
    files.retain(|path, _| !path.starts_with("vae/"));
    case.hub.put(MODEL, "c3", files);
    let message = case.refused().await;
    assert!(
        message.contains("`vae/config.json`") && message.contains("`vae/diffusion_pytorch_model.safetensors`"),
        "{message}"
    );
}

#[tokio::test]
async fn the_token_opens_the_hub_and_goes_nowhere_else() {
    let mut case = Case::new().await;
    case.hub.lock().token = Some("secret".to_owned());
    let message = case.refused().await;
    let page = format!("{}/Manojb/stable-diffusion-2-base", case.hub.url);
    assert!(message.contains("401") && message.contains("set HF_TOKEN") && message.contains(&page), "{message}");
    case.token = Some("wrong".to_owned());
    let message = case.refused().await;
    assert!(message.contains("the token in HF_TOKEN has no access") && !message.contains("wrong"), "{message}");
    case.token = Some("secret\n".to_owned());
    case.fetch().await.unwrap();
    case.complete("c1");
    let inner = case.hub.lock();
    assert!(!inner.hub.is_empty() && inner.hub.iter().all(|asked| asked.token.as_deref() == Some("secret")));
    assert!(!inner.cdn.is_empty() && inner.cdn.iter().all(|asked| asked.token.is_none()), "{:?}", inner.cdn);
}

#[tokio::test]
async fn another_hub_by_url_is_not_shown_the_token() {
    let mut case = Case::new().await;
    let other = TestHub::start().await;
    case.token = Some("secret".to_owned());
    let page = format!("{}/{MODEL}/tree/main", other.url);
    case.request.sources = vec![Source::parse(&page, None).unwrap()];
    let fetched = case.fetch().await.unwrap();
    assert_eq!(fetched.lock.endpoint.trim_end_matches('/'), other.url);
    assert!(!other.lock().hub.is_empty() && other.lock().hub.iter().all(|asked| asked.token.is_none()));
    other.lock().token = Some("secret".to_owned());
    case.request.dir = case.dir.path().join("other");
    assert!(case.refused().await.contains("set HF_ENDPOINT"));
}

#[tokio::test]
async fn too_many_requests_are_waited_for() {
    let case = Case::new().await;
    case.hub.fail(MODEL, &[Fault::Status(429, Some("0"))]);
    case.hub.fail(UNET, &[Fault::Status(429, Some("1"))]);
    case.fetch().await.unwrap();
    assert!(case.notes().contains("trying again in 1 s"), "{}", case.notes());
    case.complete("c1");
    case.hub.fail(MODEL, &[Fault::Status(429, Some("3600"))]);
    let message = case.refused().await;
    assert!(message.contains("asks to wait 3600 s") && message.contains("HF_TOKEN"), "{message}");
    case.complete("c1");
    case.hub.calm();
    case.hub.fail(MODEL, &[Fault::Status(429, None), Fault::Status(429, None), Fault::Status(429, None)]);
    assert!(case.refused().await.contains("too many requests;"));
}

#[tokio::test]
async fn a_hub_that_does_not_exist_is_named() {
    let case = Case::new().await;
    let hub = Hub::new("http://127.0.0.1:9", None, RetryPolicy { max_attempts: 1, ..weights::RETRIES }).unwrap();
    let message = weights::fetch(&hub, &case.request, &()).await.unwrap_err().to_string();
    assert!(message.contains("`127.0.0.1:9` cannot be reached") && message.contains("HF_ENDPOINT"), "{message}");
    for bad in ["", "hub", "file:///x"] {
        assert!(matches!(Hub::new(bad, None, weights::RETRIES), Err(Error::Endpoint { .. })), "{bad}");
    }
}
