//! Fetching from a hub on loopback, well-behaved and otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::time::Duration;

use tempfile::TempDir;
use tests::hub::{Fault, MODEL, TestHub, UNET, model, noise};
use weights::{
    Difference, Error, FetchRequest, Fetched, Hub, LOCK, Lock, Progress, ProgressEvent, RetryPolicy, Source, Variant,
};

/// A hub, and a folder to fetch to.
struct Case {
    hub: TestHub,
    dir: TempDir,
    token: Option<String>,
    request: FetchRequest,
    notes: Notes,
}

/// Keeps what people would read.
#[derive(Default)]
struct Notes(Mutex<String>);

impl Progress for Notes {
    fn report(&self, event: ProgressEvent<'_>) {
        if let ProgressEvent::Note(text) = event {
            let mut notes = self.0.lock().unwrap();
            notes.push_str(text);
            notes.push('\n');
        }
    }
}

impl Case {
    async fn new() -> Self {
        static CRYPTO: Once = Once::new();
        CRYPTO.call_once(|| _ = rustls::crypto::ring::default_provider().install_default());
        let dir = tempfile::tempdir().unwrap();
        let request = FetchRequest {
            dir: dir.path().join("models/sd2"),
            sources: weights::SD2.iter().map(|repo| Source::parse(repo, None).unwrap()).collect(),
            perceptual: Source::parse(weights::PERCEPTUAL, None).unwrap(),
            variant: Variant::Full,
        };
        Self { hub: TestHub::start().await, dir, token: None, request, notes: Notes::default() }
    }

    async fn fetch(&self) -> Result<Fetched, Error> {
        let retries = RetryPolicy {
            max_attempts: 3,
            first_wait: Duration::from_millis(5),
            max_retry_after: Duration::from_secs(5),
            ..weights::RETRIES
        };
        let hub = Hub::new(&self.hub.url, self.token.clone(), retries)?;
        weights::fetch(&hub, &self.request, &self.notes).await
    }

    async fn refused(&self) -> String {
        self.fetch().await.expect_err("the fetch fails").to_string()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.request.dir.join(path)
    }

    fn part(&self, path: &str) -> PathBuf {
        self.path(&format!("{path}.part"))
    }

    fn notes(&self) -> String {
        self.notes.0.lock().unwrap().clone()
    }

    fn verify(&self) -> Vec<Difference> {
        weights::verify(&self.request.dir, |_| ()).unwrap()
    }

    /// Asserts that the bundle is complete and right.
    fn complete(&self, commit: &str) {
        assert_eq!(self.verify(), []);
        assert_eq!(Lock::read(&self.request.dir).unwrap().commit, commit);
        let (_, files) = self.hub.lock().repos[MODEL].clone();
        for (path, bytes) in files.iter().filter(|(path, _)| self.path(path).exists()) {
            if self.request.variant == Variant::Full {
                assert!(fs::read(self.path(path)).unwrap() == *bytes, "{path}");
            }
        }
        assert!(!self.path(".fetch").exists());
    }
}

fn all_files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

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

#[tokio::test]
async fn room_is_looked_for_first() {
    let case = Case::new().await;
    case.hub.lock().sizes.insert(UNET.to_owned(), 1 << 60);
    let message = case.refused().await;
    assert!(message.contains("make room") && message.contains("--to"), "{message}");
    assert_eq!(case.hub.lock().hub, [], "nothing was asked for");
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
