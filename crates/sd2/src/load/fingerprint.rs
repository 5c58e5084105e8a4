//! A hash of what a model is, its weights included, so that two fine-tunes of one architecture never share it.
//!
//! Gigabytes are read once: the hash of a file is taken from the lock of a fetched model, or from a cache of those that
//! were read before, where size and time of the file are still the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bundle::Bundle;
use super::bytes;
use super::error::{Error, Result};
use super::files;
use crate::tokenizer::FILES as TOKENIZER;
use crate::words::Words;

/// The parts with weights, and how their files begin.
const WEIGHTS: [(&str, &str); 4] = [
    ("perceptual", "model"),
    ("text_encoder", "model"),
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
];

/// The configurations that every model has.
const CONFIGURATIONS: [&str; 5] = [
    "perceptual/config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
];

/// Bytes of a file that are in memory at a time: whole pages.
const PIECE: usize = 1 << 24;

/// The lock of a fetched model.
const LOCK: &str = "weights.lock";

impl Bundle {
    /// A hash of all that a picture depends on: configurations, tokenizer, weights, and what is added to them. `cache`
    /// is a file that remembers the hashes of large files; without one they are read each time.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn fingerprint(&self, cache: Option<&Path>) -> Result<String> {
        let mut parts = BTreeMap::new();
        for path in CONFIGURATIONS {
            parts.insert(path.to_owned(), hash(&self.read(path)?));
        }
        for name in TOKENIZER {
            let path = format!("tokenizer/{name}");
            if let Some(bytes) = self.find(&path)? {
                parts.insert(path, hash(&bytes));
            }
        }
        let mut known = Known::read(cache);
        if let Some(file) = self.single() {
            parts.insert("model".to_owned(), known.hash(file.path())?);
        }
        let parts_with_files = WEIGHTS.into_iter().filter(|(part, _)| self.single().is_none() || *part == "perceptual");
        for (part, stem) in parts_with_files {
            self.hash_weights(part, stem, &mut known, &mut parts)?;
        }
        for (i, lora) in self.loras().iter().enumerate() {
            let (path, weight) = lora.identity();
            parts.insert(format!("lora {i} {weight}"), known.hash(path)?);
        }
        if self.words() == Words::Hosted {
            parts.insert("words".to_owned(), "hosted".to_owned());
        }
        known.write();
        Ok(together(parts))
    }

    /// A hash of the perceptual network alone: of its configuration and weights. `cache` is that of
    /// [`Self::fingerprint`].
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn perceptual_fingerprint(&self, cache: Option<&Path>) -> Result<String> {
        let (part, config) = ("perceptual", "perceptual/config.json");
        let mut parts = BTreeMap::from([(config.to_owned(), hash(&self.read(config)?))]);
        let mut known = Known::read(cache);
        self.hash_weights(part, "model", &mut known, &mut parts)?;
        known.write();
        Ok(together(parts))
    }

    /// Adds the hashes of the weights of a part.
    fn hash_weights(
        &self,
        part: &str,
        stem: &str,
        known: &mut Known,
        hashes: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        for path in files::of_part(self, part, stem)? {
            let hash = match self.place(&path) {
                Some(place) => known.hash(&place)?,
                None => hash(&self.read(&path)?),
            };
            hashes.insert(path, hash);
        }
        Ok(())
    }
}

/// The hash of many hashes.
fn together(parts: BTreeMap<String, String>) -> String {
    let mut all = Sha256::new();
    for (path, hash) in parts {
        all.update(format!("{path}\0{hash}\n"));
    }
    hex(&all.finalize())
}

/// Hashes of files, by their paths.
struct Known {
    cache: Option<PathBuf>,
    files: BTreeMap<String, Remembered>,
    changed: bool,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Remembered {
    size: u64,
    /// Nanoseconds since 1970.
    modified: u128,
    sha256: String,
}

/// What of a lock is read.
#[derive(Deserialize)]
struct Lock {
    files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    size: u64,
    sha256: String,
}

impl Known {
    fn read(cache: Option<&Path>) -> Self {
        let text = cache.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        let files = serde_json::from_slice(&text).unwrap_or_default();
        Self { cache: cache.map(Path::to_owned), files, changed: false }
    }

    /// The hash of a file, read only if nobody knows it.
    fn hash(&mut self, path: &Path) -> Result<String> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let real = fs::canonicalize(path).map_err(failed)?;
        let metadata = fs::metadata(&real).map_err(failed)?;
        let (size, modified) = (metadata.len(), modified(&metadata));
        if let Some(sha256) = locked(path, size, modified) {
            return Ok(sha256);
        }
        let key = real.to_string_lossy().into_owned();
        if let Some(known) = self.files.get(&key).filter(|known| known.size == size && known.modified == modified) {
            return Ok(known.sha256.clone());
        }
        let bytes = bytes::map(&real).map_err(failed)?;
        let mut hash = Sha256::new();
        for begin in (0..bytes.len()).step_by(PIECE) {
            let piece = begin..bytes.len().min(begin + PIECE);
            hash.update(&bytes[piece.clone()]);
            bytes.done_with(piece);
        }
        let sha256 = hex(&hash.finalize());
        self.files.insert(key, Remembered { size, modified, sha256: sha256.clone() });
        self.changed = true;
        Ok(sha256)
    }

    /// Keeps what was found. A cache that cannot be written costs time at the next start, and nothing else.
    fn write(mut self) {
        let Some(path) = self.cache.filter(|_| self.changed) else { return };
        self.files.retain(|path, _| Path::new(path).exists());
        let Ok(text) = serde_json::to_vec_pretty(&self.files) else { return };
        let part = path.with_extension(format!("{}.part", std::process::id()));
        let dir = path.parent().map_or(Ok(()), fs::create_dir_all);
        _ = dir.and_then(|()| fs::write(&part, text)).and_then(|()| fs::rename(&part, &path));
    }
}

/// The hash that the lock of a fetched model has for a file that was not changed after it.
fn locked(path: &Path, size: u64, modified_then: u128) -> Option<String> {
    let folder = path.parent()?.parent()?;
    let lock = folder.join(LOCK);
    if modified(&fs::metadata(&lock).ok()?) < modified_then {
        return None;
    }
    let lock: Lock = serde_json::from_slice(&fs::read(lock).ok()?).ok()?;
    let inside = path.strip_prefix(folder).ok()?.to_string_lossy().into_owned();
    lock.files.into_iter().find(|entry| entry.path == inside && entry.size == size).map(|entry| entry.sha256)
}

fn modified(metadata: &Metadata) -> u128 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos())
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
