//! `weights.lock`: what a bundle consists of, where it came from, and whether that still holds.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::{Error, Result};
use crate::hash::{Hash, Hasher, Sums};
use crate::layout::LOCK;
use crate::listing::Listing;

/// The version of what is written.
const VERSION: u32 = 1;

/// What a bundle consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The version of this format.
    pub version: u32,
    /// The hub.
    pub endpoint: String,
    /// The repository of the model.
    pub repo: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The commit that it was.
    pub commit: String,
    /// The files, sorted by path.
    pub files: Vec<Entry>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the bundle, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: String,
    /// The file on the hub that it is, or was made from; none for what is built into the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A file on a hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `owner/name`.
    pub repo: String,
    /// The commit.
    pub commit: String,
    /// The path in the repository.
    pub path: String,
    /// The hash that the hub lists.
    pub hash: Hash,
}

/// How a bundle differs from its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A file is missing.
    Missing {
        /// Its path.
        path: String,
    },
    /// A file has another size.
    Size {
        /// Its path.
        path: String,
        /// Bytes in the lock.
        expected: u64,
        /// Bytes on the disk.
        found: u64,
    },
    /// A file has another content.
    Content {
        /// Its path.
        path: String,
        /// SHA-256 in the lock.
        expected: String,
        /// SHA-256 on the disk.
        found: String,
    },
    /// A file is not in the lock.
    Extra {
        /// Its path.
        path: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "`{path}` is missing"),
            Self::Size { path, expected, found } => write!(f, "`{path}` has {found} bytes, not {expected}"),
            Self::Content { path, expected, found } => write!(f, "`{path}` has the sha256 {found}, not {expected}"),
            Self::Extra { path } => write!(f, "`{path}` is extra: it is not in the lock"),
        }
    }
}

impl Lock {
    /// An empty lock for a model of a repository.
    pub(crate) fn new(listing: &Listing) -> Self {
        Self {
            version: VERSION,
            endpoint: listing.endpoint.to_string(),
            repo: listing.source.repo.clone(),
            revision: listing.source.revision.clone(),
            commit: listing.commit.clone(),
            files: Vec::new(),
        }
    }

    /// Reads the lock of a bundle.
    ///
    /// # Errors
    /// If it is missing or cannot be understood.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Unlocked(dir.to_owned())),
            _ => Self::read_file(&path),
        }
    }

    pub(crate) fn read_file(path: &Path) -> Result<Self> {
        let wrong = |why: String| Error::Lock { path: path.to_owned(), why };
        let text = fs::read(path).map_err(Error::io(path))?;
        let lock: Self = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        if lock.version != VERSION {
            return Err(wrong(format!("it has the version {}, and only {VERSION} is understood", lock.version)));
        }
        let inside = |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        match lock.files.iter().find(|file| !inside(&file.path)) {
            Some(file) => Err(wrong(format!("`{}` is not a path in a bundle", file.path))),
            None => Ok(lock),
        }
    }

    /// Writes the lock, whole or not at all.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(LOCK);
        let text =
            serde_json::to_string_pretty(self).map_err(|e| Error::Lock { path: path.clone(), why: e.to_string() })?;
        disk::write(&path, format!("{text}\n").as_bytes())
    }

    /// The entry of a path.
    pub(crate) fn find(&self, path: &str) -> Option<&Entry> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Compares a bundle with its lock: every byte is read. `begin` is called before a file is read.
///
/// # Errors
/// If there is no lock, or a file cannot be read; a difference is not an error.
pub fn verify(dir: &Path, mut begin: impl FnMut(&Entry)) -> Result<Vec<Difference>> {
    let lock = Lock::read(dir)?;
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found)?;
    found.remove(LOCK);
    let mut differences = Vec::new();
    for entry in &lock.files {
        let path = entry.path.clone();
        match found.remove(&entry.path) {
            None => differences.push(Difference::Missing { path }),
            Some(size) if size != entry.size => {
                differences.push(Difference::Size { path, expected: entry.size, found: size });
            }
            Some(_) => {
                begin(entry);
                let sums = sums(&dir.join(&entry.path), Hasher::plain())?;
                if sums.sha256 != entry.sha256 {
                    let expected = entry.sha256.clone();
                    differences.push(Difference::Content { path, expected, found: sums.sha256 });
                }
            }
        }
    }
    differences.extend(found.into_keys().map(|path| Difference::Extra { path }));
    Ok(differences)
}

/// Reads a file to its end.
pub(crate) fn sums(path: &Path, mut hasher: Hasher) -> Result<Sums> {
    File::open(path).and_then(|file| hasher.read(file)).map_err(Error::io(path))?;
    Ok(hasher.finish())
}

/// The sizes of all files under a folder.
fn walk(dir: &Path, prefix: &str, found: &mut BTreeMap<String, u64>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // Links are followed to files, not to folders: those could lead in a circle.
        if entry.file_type().map_err(Error::io(&path))?.is_dir() {
            walk(&path, &format!("{name}/"), found)?;
        } else {
            found.insert(name, disk::size(&path));
        }
    }
    Ok(())
}
