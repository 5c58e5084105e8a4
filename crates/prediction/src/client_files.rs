//! Files that clients upload to use them as inputs: kept for a day, in bounds, each for its owner alone.
//!
//! They lie in a folder of their own in the data folder, the bytes as `ID` and what is known of them as `ID.json`,
//! which is written last and removed first: bytes without it are the rest of something that was interrupted. Without a
//! data folder they are in memory, and servers that share a database keep them there.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::files;
use crate::mutex::lock;
use crate::random;
use crate::time::Time;

/// How long a file is kept.
const KEEP: Duration = Duration::from_hours(24);
/// The greatest number of files.
pub const MAX_FILES: usize = 1000;
/// The greatest sum of their bytes in the data folder.
pub const MAX_BYTES: u64 = 1 << 30;
/// The same in memory.
pub const MAX_BYTES_IN_MEMORY: u64 = 64 << 20;
/// How often files that have expired are removed.
const SWEEP: Duration = Duration::from_mins(1);
/// The folder in the data folder.
const FOLDER: &str = "files";
/// The mode of what is written there.
const OWNER_ONLY: u32 = 0o600;

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientFile {
    /// Its id, which nobody can guess.
    pub id: String,
    /// Names the client that uploaded it; empty where clients need no token.
    pub owner: String,
    /// Its name, as the client has it.
    pub name: String,
    /// Its media type, as the client has it.
    pub content_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// What the client wants to know of it.
    pub metadata: Map<String, Value>,
    /// When it was uploaded.
    pub created_at: Time,
    /// When it is removed.
    pub expires_at: Time,
}

/// A file to keep.
#[derive(Clone, Debug, Default)]
pub struct Upload {
    /// See [`ClientFile`].
    pub owner: String,
    /// See [`ClientFile`].
    pub name: String,
    /// See [`ClientFile`].
    pub content_type: String,
    /// See [`ClientFile`].
    pub metadata: Map<String, Value>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a file was not kept.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// There is no room.
    #[error("the files of clients take all the room there is for them; delete some, or try again when they expire")]
    Full,
    /// The folder cannot be written.
    #[error("the file cannot be kept: {0}")]
    Io(#[from] io::Error),
}

/// Where several servers keep the files of clients together. All calls block.
pub trait Common: Send + Sync {
    /// Keeps a file, if there is room beside [`MAX_FILES`] and [`MAX_BYTES`].
    ///
    /// # Errors
    /// If it cannot be kept.
    fn add(&self, file: &ClientFile, bytes: &[u8]) -> io::Result<bool>;

    /// What is known of a file.
    ///
    /// # Errors
    /// If that cannot be read.
    fn get(&self, id: &str) -> io::Result<Option<ClientFile>>;

    /// The bytes of a file.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read(&self, id: &str) -> io::Result<Option<Arc<[u8]>>>;

    /// The files of an owner, in any order.
    ///
    /// # Errors
    /// If they cannot be read.
    fn list(&self, owner: &str) -> io::Result<Vec<ClientFile>>;

    /// Removes a file; false if there is none.
    ///
    /// # Errors
    /// If it cannot be removed.
    fn remove(&self, id: &str) -> io::Result<bool>;

    /// Removes what has expired.
    ///
    /// # Errors
    /// If it cannot be removed.
    fn sweep(&self) -> io::Result<()>;
}

/// The files of all clients. What touches the disk or a database blocks: call it beside the async threads.
pub struct ClientFiles {
    /// Where other servers have them, too.
    common: Option<Arc<dyn Common>>,
    /// `None` for files in memory.
    folder: Option<PathBuf>,
    kept: Mutex<HashMap<String, Kept>>,
}

#[derive(Debug)]
struct Kept {
    file: ClientFile,
    /// The bytes, where they are in memory.
    bytes: Option<Arc<[u8]>>,
}

impl ClientFiles {
    /// The files of a data folder, or of the memory. What has expired or was left half is removed.
    ///
    /// # Errors
    /// If the folder is there and cannot be read.
    pub fn open(data: Option<&Path>) -> io::Result<Self> {
        let folder = data.map(|data| data.join(FOLDER));
        let mut kept = HashMap::new();
        if let Some(folder) = &folder {
            let known = match fs::read_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(Self { common: None, folder: Some(folder.clone()), kept: Mutex::default() });
                }
                entries => entries?.collect::<io::Result<Vec<_>>>()?,
            };
            for path in
                known.iter().map(fs::DirEntry::path).filter(|path| path.extension().is_some_and(|end| end == "json"))
            {
                let file = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<ClientFile>(&text).ok());
                if let Some(file) = file.filter(|file| path.file_stem().is_some_and(|stem| *stem == *file.id)) {
                    kept.insert(file.id.clone(), Kept { file, bytes: None });
                }
            }
            for path in known.iter().map(fs::DirEntry::path) {
                if !path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| kept.contains_key(stem)) {
                    _ = fs::remove_file(path);
                }
            }
        }
        let files = Self { common: None, folder, kept: Mutex::new(kept) };
        files.sweep();
        Ok(files)
    }

    /// The files that several servers keep together.
    pub fn common(common: Arc<dyn Common>) -> Self {
        Self { common: Some(common), folder: None, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        lock(&self.kept)
    }

    /// Keeps a file.
    ///
    /// # Errors
    /// Why it is not kept.
    pub fn add(&self, upload: Upload) -> Result<ClientFile, NotKept> {
        let Upload { owner, name, content_type, metadata, bytes } = upload;
        // As it is read back.
        let now = Time::from_micros(Time::now().micros());
        let file = ClientFile {
            id: hex::encode(random::bytes::<16>()?),
            owner,
            name,
            content_type,
            size: bytes.len() as u64,
            sha256: hex::encode(digest(&SHA256, &bytes)),
            metadata,
            created_at: now,
            expires_at: now.after(KEEP),
        };
        self.sweep();
        if let Some(common) = &self.common {
            return if common.add(&file, &bytes)? { Ok(file) } else { Err(NotKept::Full) };
        }
        {
            // The place is taken before the bytes are written, so that many at once do not take more than there is.
            let mut kept = self.kept();
            let max = if self.folder.is_some() { MAX_BYTES } else { MAX_BYTES_IN_MEMORY };
            let taken: u64 = kept.values().map(|kept| kept.file.size).sum();
            if kept.len() >= MAX_FILES || taken + file.size > max {
                return Err(NotKept::Full);
            }
            let bytes = self.folder.is_none().then(|| bytes.as_slice().into());
            kept.insert(file.id.clone(), Kept { file: file.clone(), bytes });
        }
        if let Some(folder) = &self.folder
            && let Err(error) = write(folder, &file, &bytes)
        {
            self.kept().remove(&file.id);
            erase(folder, &file.id);
            return Err(error.into());
        }
        Ok(file)
    }

    /// A file of an owner.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn get(&self, owner: &str, id: &str) -> io::Result<Option<ClientFile>> {
        let file = match &self.common {
            Some(common) => common.get(id)?,
            None => self.kept().get(id).map(|kept| kept.file.clone()),
        };
        Ok(file.filter(|file| file.owner == owner && !has_expired(file)))
    }

    /// The bytes of a file of an owner.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read(&self, owner: &str, id: &str) -> io::Result<Option<Arc<[u8]>>> {
        if self.get(owner, id)?.is_none() {
            return Ok(None);
        }
        if let Some(common) = &self.common {
            return common.read(id);
        }
        match &self.folder {
            None => Ok(self.kept().get(id).and_then(|kept| kept.bytes.clone())),
            Some(folder) => match fs::read(folder.join(id)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                read => read.map(|bytes| Some(bytes.into())),
            },
        }
    }

    /// The files of an owner, newest first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn list(&self, owner: &str) -> io::Result<Vec<ClientFile>> {
        let mut own: Vec<ClientFile> = match &self.common {
            Some(common) => common.list(owner)?,
            None => self.kept().values().map(|kept| kept.file.clone()).filter(|file| file.owner == owner).collect(),
        };
        own.retain(|file| !has_expired(file));
        own.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(own)
    }

    /// Removes a file of an owner; false if there is none.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, owner: &str, id: &str) -> io::Result<bool> {
        if self.get(owner, id)?.is_none() {
            return Ok(false);
        }
        if let Some(common) = &self.common {
            return common.remove(id);
        }
        let was_kept = self.kept().remove(id).is_some();
        if let Some(folder) = &self.folder {
            erase(folder, id);
        }
        Ok(was_kept)
    }

    /// Removes what has expired.
    fn sweep(&self) {
        if let Some(common) = &self.common
            && let Err(error) = common.sweep()
        {
            tracing::warn!(%error, "files of clients that have expired could not be removed");
        }
        let mut expired = Vec::new();
        self.kept().retain(|id, kept| {
            let is_over = has_expired(&kept.file);
            if is_over {
                expired.push(id.clone());
            }
            !is_over
        });
        if let Some(folder) = &self.folder {
            for id in &expired {
                erase(folder, id);
            }
        }
    }

    /// Removes what has expired, as long as somebody else holds the files.
    pub async fn upkeep(self: Arc<Self>) {
        let files = Arc::downgrade(&self);
        drop(self);
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(files) = files.upgrade() else { return };
            _ = tokio::task::spawn_blocking(move || files.sweep()).await;
        }
    }
}

fn has_expired(file: &ClientFile) -> bool {
    file.expires_at <= Time::now()
}

/// The file with what is known of a file.
fn known(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.json"))
}

fn write(folder: &Path, file: &ClientFile, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    files::write(&folder.join(&file.id), bytes, OWNER_ONLY)?;
    files::write(&known(folder, &file.id), &serde_json::to_vec(file)?, OWNER_ONLY)
}

/// Removes a file from the disk. What cannot be removed now goes with the next start.
fn erase(folder: &Path, id: &str) {
    for path in [known(folder, id), folder.join(id)] {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a file of a client could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn upload(owner: &str, bytes: Vec<u8>) -> Upload {
        Upload { owner: owner.to_owned(), name: "a.png".to_owned(), bytes, ..Upload::default() }
    }

    #[test]
    fn a_file_is_there_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        for data in [None, Some(dir.path())] {
            let files = ClientFiles::open(data).unwrap();
            let one = files.add(upload("me", b"one".to_vec())).unwrap();
            let two = files.add(upload("me", b"two".to_vec())).unwrap();
            assert_eq!(one.sha256, hex::encode(digest(&SHA256, b"one")));
            assert_eq!(files.get("me", &one.id).unwrap().as_ref(), Some(&one));
            assert_eq!(files.read("me", &one.id).unwrap().as_deref(), Some(&b"one"[..]));
            assert_eq!(files.list("me").unwrap(), [two.clone(), one.clone()], "newest first");
            assert!(files.get("you", &one.id).unwrap().is_none() && files.read("you", &one.id).unwrap().is_none());
            assert!(files.list("you").unwrap().is_empty() && !files.remove("you", &one.id).unwrap());
            assert!(files.remove("me", &one.id).unwrap() && !files.remove("me", &one.id).unwrap());
            assert!(files.get("me", &one.id).unwrap().is_none() && files.read("me", &one.id).unwrap().is_none());
            assert!(files.get("me", "../data").unwrap().is_none() && files.read("me", "../data").unwrap().is_none());
        }
    }

    #[test]
    fn files_outlive_the_process_and_expire() {
        let dir = tempfile::tempdir().unwrap();
        let files = ClientFiles::open(Some(dir.path())).unwrap();
        let (kept, old) =
            (files.add(upload("", b"a".to_vec())).unwrap(), files.add(upload("", b"b".to_vec())).unwrap());
        let folder = dir.path().join(FOLDER);
        assert_eq!(folder.join(&kept.id).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(folder.join("half"), "interrupted").unwrap();
        let past = ClientFile { expires_at: Time::from_micros(0), ..old.clone() };
        fs::write(known(&folder, &old.id), serde_json::to_vec(&past).unwrap()).unwrap();
        let files = ClientFiles::open(Some(dir.path())).unwrap();
        assert_eq!(files.list("").unwrap(), std::slice::from_ref(&kept));
        let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [kept.id.as_str(), &format!("{}.json", kept.id)], "the others are gone from the disk");
        files.kept().get_mut(&kept.id).unwrap().file.expires_at = Time::now();
        assert!(
            files.list("").unwrap().is_empty() && files.get("", &kept.id).unwrap().is_none(),
            "before anybody sweeps"
        );
        files.sweep();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn there_are_bounds() {
        let files = ClientFiles::open(None).unwrap();
        let half = MAX_BYTES_IN_MEMORY as usize / 2;
        let first = files.add(upload("me", vec![0; half])).unwrap();
        files.add(upload("me", vec![0; half])).unwrap();
        assert!(matches!(files.add(upload("you", vec![0])), Err(NotKept::Full)));
        assert!(files.remove("me", &first.id).unwrap());
        for _ in files.list("me").unwrap().len()..MAX_FILES {
            files.add(upload("you", Vec::new())).unwrap();
        }
        assert!(matches!(files.add(upload("you", Vec::new())), Err(NotKept::Full)), "in number, too");
    }
}
