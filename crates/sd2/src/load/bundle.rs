//! The files of a model: in a folder, or in the program itself.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};
use sha2::{Digest, Sha256};

use super::error::{Error, Result};

/// The folders of a model.
const PARTS: [&str; 6] = ["perceptual", "scheduler", "text_encoder", "tokenizer", "unet", "vae"];

/// A model in the diffusers folder layout. Paths inside it are relative and use `/`.
#[derive(Clone, Debug)]
pub enum Bundle {
    /// A folder on disk. Its files are mapped into memory while they are loaded, those of the text encoder for as long
    /// as it exists. They must not be changed meanwhile: reading the map of a truncated file kills the process with
    /// SIGBUS. To replace a model, rename its files or folder; open maps keep the old content.
    Folder(PathBuf),
    /// Files compiled into the program, as pairs of path and content.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl Bundle {
    /// A model in a folder on disk; see [`Self::Folder`].
    ///
    /// # Errors
    /// If the path is not a folder.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        match std::fs::metadata(&folder) {
            Ok(found) if found.is_dir() => Ok(Self::Folder(folder)),
            Ok(_) => Err(Error::Io { path: folder, source: io::Error::other("not a folder") }),
            Err(source) => Err(Error::Io { path: folder, source }),
        }
    }

    /// The demo model.
    #[cfg(test)]
    pub(crate) fn demo() -> Self {
        Self::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo")).expect("the repository has it")
    }

    /// A hash that identifies the model: of its configurations, and of names, shapes and offsets of its weights. The
    /// weights themselves, which are gigabytes, are not read.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for path in self.files()? {
            let Some(bytes) = self.find(&path)? else { continue };
            hash.update(path.as_bytes());
            hash.update((bytes.len() as u64).to_le_bytes());
            let header = if path.ends_with(".safetensors") {
                bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)).saturating_add(8)
            } else {
                bytes.len() as u64
            };
            hash.update(&bytes[..header.min(bytes.len() as u64) as usize]);
        }
        Ok(hex(&hash.finalize()))
    }

    /// The sorted paths of all files of the model.
    fn files(&self) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        match self {
            Self::Embedded(files) => paths.extend(files.iter().map(|(path, _)| (*path).to_owned())),
            Self::Folder(folder) => {
                for part in PARTS {
                    let path = folder.join(part);
                    let entries = std::fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
                    let entries = entries.map_err(|e| match e.kind() {
                        io::ErrorKind::NotFound => Error::Missing { wanted: format!("{part}/") },
                        _ => Error::Io { path, source: e },
                    })?;
                    paths.extend(entries.iter().map(|entry| format!("{part}/{}", entry.file_name().to_string_lossy())));
                }
            }
        }
        paths.retain(|path| [".json", ".txt", ".safetensors"].iter().any(|end| path.ends_with(end)));
        paths.sort();
        Ok(paths)
    }

    /// The content of a file, or `None` if it does not exist.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Bytes>> {
        match self {
            Self::Embedded(files) => {
                Ok(files.iter().find(|(name, _)| *name == path).map(|(_, bytes)| Bytes::Static(bytes)))
            }
            Self::Folder(folder) => {
                let path = folder.join(path);
                match map(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(Error::Io { path, source }),
                }
            }
        }
    }

    /// The content of a file that has to exist.
    pub(crate) fn read(&self, path: &str) -> Result<Bytes> {
        self.find(path)?.ok_or_else(|| Error::Missing { wanted: path.to_owned() })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The content of a file.
pub(crate) enum Bytes {
    Static(&'static [u8]),
    Mapped(Mmap),
}

impl Bytes {
    /// Drops the pages of `range` from memory. They are read from the file again if they are needed again.
    ///
    /// # Panics
    /// If the range is not inside the content.
    pub(crate) fn done_with(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len(), "a range of the content");
        if let Self::Mapped(map) = self {
            #[expect(unsafe_code, reason = "the safe advice has no `DontNeed`")]
            // SAFETY: the range is inside the map, which is a read-only one of a file: dropped pages have no changes to
            // lose, and read again they are the same.
            // If it fails, the pages that stay cost memory only.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    #[expect(unsafe_code, reason = "gigabytes of weights go to their device without a copy of the file in memory")]
    // SAFETY: the map is read-only, and by the contract of `Bundle::Folder` nobody changes the file while it exists.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::Mapped(map))
}
