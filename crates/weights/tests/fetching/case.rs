//! A hub on loopback, and a folder to fetch to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::time::Duration;

use tempfile::TempDir;
use tests::hub::{MODEL, TestHub};
use weights::{
    Difference, Error, FetchRequest, Fetched, Hub, Lock, Progress, ProgressEvent, RetryPolicy, Source, Variant,
};

/// A hub, and a folder to fetch to.
pub(crate) struct Case {
    pub(crate) hub: TestHub,
    pub(crate) dir: TempDir,
    pub(crate) token: Option<String>,
    pub(crate) request: FetchRequest,
    notes: Notes,
}

/// Keeps what people would read.
#[derive(Default)]
pub(crate) struct Notes(Mutex<String>);

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
    pub(crate) async fn new() -> Self {
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

    /// The hub, for a client that does not wait long.
    pub(crate) fn client(&self) -> Result<Hub, Error> {
        let retries = RetryPolicy {
            max_attempts: 3,
            first_wait: Duration::from_millis(5),
            max_retry_after: Duration::from_secs(5),
            ..weights::RETRIES
        };
        Hub::new(&self.hub.url, self.token.clone(), retries)
    }

    pub(crate) async fn fetch(&self) -> Result<Fetched, Error> {
        weights::fetch(&self.client()?, &self.request, &self.notes).await
    }

    pub(crate) async fn refused(&self) -> String {
        self.fetch().await.expect_err("the fetch fails").to_string()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.request.dir.join(path)
    }

    pub(crate) fn part(&self, path: &str) -> PathBuf {
        self.path(&format!("{path}.part"))
    }

    pub(crate) fn notes(&self) -> String {
        self.notes.0.lock().unwrap().clone()
    }

    pub(crate) fn verify(&self) -> Vec<Difference> {
        weights::verify(&self.request.dir, |_| ()).unwrap()
    }

    /// Asserts that the bundle is complete and right.
    pub(crate) fn complete(&self, commit: &str) {
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

pub(crate) fn all_files(dir: &Path) -> Vec<String> {
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
