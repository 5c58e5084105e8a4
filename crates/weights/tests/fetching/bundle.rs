//! What is fetched: a bundle that is complete and right, and what is wrong with one.

use std::fs;
use std::time::Duration;

use tests::hub::{Fault, MODEL, UNET, model, noise};
use weights::{Difference, Error, LOCK, Variant};

use crate::case::{Case, all_files};

#[tokio::test]
async fn a_bundle_is_complete_and_fetched_once() {
    let case = Case::new().await;
    let fetched = case.fetch().await.unwrap();
    case.complete("c1");
    let expected = [
        "model_index.json",
        "perceptual/LICENSE.lpips",
        "perceptual/config.json",
        "perceptual/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        UNET,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        LOCK,
    ];
    assert_eq!(all_files(&case.request.dir), expected);
    assert_eq!(fetched.lock.files.len(), expected.len() - 1);
    assert_eq!(
        fs::read_to_string(case.path("perceptual/config.json")).unwrap(),
        "{\"channels\":[64,128,256,512,512]}\n"
    );
    let unet = fetched.lock.files.iter().find(|file| file.path == UNET).unwrap();
    assert_eq!((unet.size, unet.origin.as_ref().unwrap().repo.as_str()), (3_000_000, MODEL));
    case.hub.calm();
    assert_eq!(case.fetch().await.unwrap().changed, 0);
    assert_eq!(case.hub.lock().hub, [], "what is there is not asked for");
    case.complete("c1");
}

#[tokio::test]
async fn a_wrong_content_leaves_nothing() {
    let small = "tokenizer/merges.txt";
    let size = model()[small].len();
    for (path, wrong) in [(UNET, noise(3_000_000, 1)), (small, noise(size, 1)), (small, noise(size + 1, 1))] {
        let case = Case::new().await;
        case.hub.fail(path, &[Fault::Content(wrong)]);
        let message = case.refused().await;
        assert!(message.contains(path) && message.contains("the hub lists") && message.contains(MODEL), "{message}");
        assert!(!case.path(path).exists() && !case.part(path).exists() && !case.path(LOCK).exists());
        case.fetch().await.unwrap();
        case.complete("c1");
    }
}

#[tokio::test]
async fn another_variant_replaces_the_one_that_is_there() {
    let mut case = Case::new().await;
    case.fetch().await.unwrap();
    case.request.variant = Variant::Fp16;
    case.hub.calm();
    let half = "unet/diffusion_pytorch_model.fp16.safetensors";
    case.hub.fail(half, &[Fault::Drop(9), Fault::Drop(0), Fault::Drop(0), Fault::Drop(0)]);
    case.refused().await;
    assert!(!case.path(LOCK).exists(), "half changed is not complete");
    case.hub.calm();
    case.fetch().await.unwrap();
    case.complete("c1");
    assert_eq!(fs::metadata(case.path(UNET)).unwrap().len(), 1_500_000);
    assert_eq!(case.hub.served("model.safetensors"), 0, "the perceptual network was there");
}

#[tokio::test]
async fn files_of_another_layout_do_not_stay() {
    let case = Case::new().await;
    case.fetch().await.unwrap();
    let mut files = model();
    files.remove(UNET);
    for name in [".safetensors.index.json", "-00001-of-00002.safetensors", "-00002-of-00002.safetensors"] {
        files.insert(format!("unet/diffusion_pytorch_model{name}"), noise(1000, 3));
    }
    case.hub.put(MODEL, "c4", files);
    case.fetch().await.unwrap();
    case.complete("c4");
    assert!(!case.path(UNET).exists() && case.path("unet/diffusion_pytorch_model-00001-of-00002.safetensors").exists());
}

#[tokio::test]
async fn all_differences_are_listed() {
    let case = Case::new().await;
    assert!(matches!(weights::verify(case.dir.path(), |_| ()), Err(Error::Unlocked { .. })));
    case.fetch().await.unwrap();
    fs::remove_file(case.path("vae/config.json")).unwrap();
    fs::write(case.path("model_index.json"), "short").unwrap();
    let mut bytes = fs::read(case.path(UNET)).unwrap();
    bytes[1_000_000] ^= 4;
    fs::write(case.path(UNET), bytes).unwrap();
    fs::write(case.path("unet/more.safetensors"), "x").unwrap();
    let differences: Vec<String> = case.verify().iter().map(ToString::to_string).collect();
    assert_eq!(differences.len(), 4, "{differences:?}");
    assert!(differences[0].starts_with("`model_index.json` has 5 bytes, not "));
    assert!(differences[1].starts_with(&format!("`{UNET}` has the sha256 ")));
    assert_eq!(differences[2], "`vae/config.json` is missing");
    assert_eq!(differences[3], "`unet/more.safetensors` is extra: it is not in the lock");
    // Another fetch restores what is wrong, and nothing else.
    case.hub.calm();
    assert_eq!(case.fetch().await.unwrap().changed, 3);
    assert_eq!(case.verify(), [Difference::Extra { path: "unet/more.safetensors".to_owned() }]);
}

#[tokio::test]
async fn folders_of_others_are_left_alone() {
    let case = Case::new().await;
    fs::create_dir_all(&case.request.dir).unwrap();
    fs::write(case.path("thesis.txt"), "x").unwrap();
    assert!(case.refused().await.contains("choose another folder with `--to`"));
    assert_eq!(all_files(&case.request.dir), ["thesis.txt"]);
    fs::remove_file(case.path("thesis.txt")).unwrap();
    case.hub.fail(UNET, &[Fault::Stall(1000)]);
    let first = case.fetch();
    let second = async {
        while !case.part(UNET).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        case.refused().await
    };
    let message = tokio::select! { _ = first => panic!("the first waits"), message = second => message };
    assert!(message.contains("another `weights fetch` is writing"), "{message}");
}

#[tokio::test]
async fn room_is_looked_for_first() {
    let case = Case::new().await;
    case.hub.lock().sizes.insert(UNET.to_owned(), 1 << 60);
    let message = case.refused().await;
    assert!(message.contains("make room") && message.contains("--to"), "{message}");
    assert_eq!(case.hub.lock().hub, [], "nothing was asked for");
}
