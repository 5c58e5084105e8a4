//! A fetch: from sources to a bundle that is complete.
//!
//! The state of an unfinished fetch is in the folder [`WORK`] of the bundle: the hash that each `NAME.part` is for, the
//! lock of the bundle before, and VGG16 as it was received. What always holds: the lock is moved away before the first
//! file of a complete bundle changes, and written after the last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File as Disk};
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::disk;
use crate::download::download;
use crate::error::{Error, Result};
use crate::hash::{Hash, Hasher, Sums};
use crate::hub::Hub;
use crate::layout::{LOCK, NETWORK, WORK};
use crate::listing::Listing;
use crate::lock::{self, Entry, Lock};
use crate::perceptual;
use crate::plan::{self, File, Variant};
use crate::progress::{Progress, ProgressEvent};
use crate::source::Source;

/// Files that are received at a time.
const PARALLEL: usize = 4;
/// Files from this size on take seconds to check.
const LONG: u64 = 100_000_000;

/// What to fetch.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The bundle's folder.
    pub dir: PathBuf,
    /// Where the model may be; the first that has it is used.
    pub sources: Vec<Source>,
    /// Where VGG16 is.
    pub perceptual: Source,
    /// Which weights.
    pub variant: Variant,
}

/// What was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The lock of the bundle.
    pub lock: Lock,
    /// Files that were received or made; 0 if the bundle was complete before.
    pub changed: usize,
}

/// Fetches a model, or what is missing of it.
///
/// # Errors
/// See [`Error`]. What was received is kept, and the next call resumes from it.
pub async fn fetch(hub: &Hub, request: &FetchRequest, progress: &dyn Progress) -> Result<Fetched> {
    let dir = &request.dir;
    let (listing, files) = choose(hub, request, progress).await?;
    let vgg = hub.listing(&request.perceptual, progress).await?;
    let vgg = plan::perceptual(&vgg, format!("{WORK}/vgg16.safetensors"))?;
    let work = Work::begin(dir)?;
    let before = work.before();
    let old = work.plan(files.iter().chain([&vgg]))?;

    let mut lock = Lock::new(&listing);
    lock.files.extend(built_in(dir)?);
    let mut missing = Vec::new();
    for file in files {
        if file.size >= LONG && dir.join(&file.path).is_file() {
            progress.report(ProgressEvent::Note(&format!("checking `{}`, which was fetched before", file.path)));
        }
        match existing(dir, &file).await? {
            Some(sums) => lock.files.push(entry(&file.path, sums, &file)),
            None => missing.push(file),
        }
    }
    let network = made_before(dir, before.as_ref(), &vgg).await?;
    let cuts = network.is_none();
    let changed = missing.len() + usize::from(cuts);
    lock.files.extend(network);
    // VGG16 itself may have been received before, and only wait to be cut.
    if cuts && existing(dir, &vgg).await?.is_none() {
        missing.push(vgg.clone());
    }
    room(dir, &missing, cuts)?;
    if changed > 0 {
        work.remove_lock()?;
    }
    // The largest first, so that none is received alone at the end.
    missing.sort_by_key(|file| std::cmp::Reverse(file.size));
    let received = stream::iter(&missing)
        .map(|file| async move { download(hub, file, dir, progress).await.map(|sums| (file, sums)) });
    let received: Vec<(&File, Sums)> = received.buffer_unordered(PARALLEL).try_collect().await?;
    let received = received.into_iter().filter(|(file, _)| file.path != vgg.path);
    lock.files.extend(received.map(|(file, sums)| entry(&file.path, sums, file)));
    if cuts {
        lock.files.push(cut(dir, &vgg).await?);
    }
    lock.files.sort_by(|a, b| a.path.cmp(&b.path));
    if changed > 0 || before.as_ref() != Some(&lock) {
        // Files of another layout would be loaded instead of the new ones, or beside them.
        let old = old.into_iter().chain(before.iter().flat_map(|lock| lock.files.iter().map(|file| file.path.clone())));
        for path in old.filter(|path| lock.find(path).is_none() && *path != vgg.path) {
            work.remove_lock()?;
            disk::remove(&dir.join(path))?;
        }
        lock.write(dir)?;
    }
    work.end()?;
    Ok(Fetched { lock, changed })
}

/// The first source that has the model. An error that is not about the repository ends the search.
async fn choose(hub: &Hub, request: &FetchRequest, progress: &dyn Progress) -> Result<(Listing, Vec<File>)> {
    let mut sources = request.sources.iter().peekable();
    while let Some(source) = sources.next() {
        let listing = hub.listing(source, progress).await;
        match listing.and_then(|listing| Ok((plan::plan(&listing, request.variant)?, listing))) {
            Ok((files, listing)) => return Ok((listing, files)),
            Err(error) if error.is_about_the_repository() && sources.peek().is_some() => {
                progress.report(ProgressEvent::Note(&format!("{error}\ntrying the next source")));
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Source { text: String::new(), why: "no source was named".to_owned() })
}

/// The sums of a file that was fetched before: it has its final name and the right content.
async fn existing(dir: &Path, file: &File) -> Result<Option<Sums>> {
    let path = dir.join(&file.path);
    if !path.is_file() || disk::size(&path) != file.size {
        return Ok(None);
    }
    let hasher = Hasher::of(&file.origin.hash, file.size);
    let sums = blocking(move || lock::sums(&path, hasher)).await?;
    Ok(Some(sums).filter(|sums| file.origin.hash.fits(sums)))
}

/// The entry of the perceptual network, if it was made from the same file and has not changed.
async fn made_before(dir: &Path, before: Option<&Lock>, vgg: &File) -> Result<Option<Entry>> {
    let Some(entry) = before.and_then(|lock| lock.find(NETWORK)) else { return Ok(None) };
    let path = dir.join(NETWORK);
    let same = entry.origin.as_ref().is_some_and(|origin| origin.hash == vgg.origin.hash);
    if !same || !path.is_file() || disk::size(&path) != entry.size {
        return Ok(None);
    }
    let sums = blocking(move || lock::sums(&path, Hasher::plain())).await?;
    Ok(Some(entry.clone()).filter(|entry| entry.sha256 == sums.sha256))
}

/// Makes the perceptual network.
async fn cut(dir: &Path, vgg: &File) -> Result<Entry> {
    let (from, to) = (dir.join(&vgg.path), dir.join(NETWORK));
    let sums = blocking(move || {
        let bytes = perceptual::cut(&from)?;
        disk::write(&to, &bytes)?;
        Ok(of(&bytes))
    });
    Ok(entry(NETWORK, sums.await?, vgg))
}

/// Writes the files that are built into the program, unless they are there.
fn built_in(dir: &Path) -> Result<Vec<Entry>> {
    let folder = dir.join("perceptual");
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let files = [("perceptual/config.json", perceptual::CONFIG), ("perceptual/LICENSE.lpips", perceptual::LICENCE)];
    let write = |(path, text): (&str, &str)| {
        let place = dir.join(path);
        if fs::read(&place).ok().as_deref() != Some(text.as_bytes()) {
            disk::write(&place, text.as_bytes())?;
        }
        let Sums { size, sha256, .. } = of(text.as_bytes());
        Ok(Entry { path: path.to_owned(), size, sha256, origin: None })
    };
    files.into_iter().map(write).collect()
}

fn of(bytes: &[u8]) -> Sums {
    let mut hasher = Hasher::plain();
    hasher.update(bytes);
    hasher.finish()
}

fn entry(path: &str, sums: Sums, file: &File) -> Entry {
    Entry { path: path.to_owned(), size: sums.size, sha256: sums.sha256, origin: Some(file.origin.clone()) }
}

/// Checks that the disk has room for what is still to be written.
fn room(dir: &Path, missing: &[File], cuts: bool) -> Result<()> {
    let rest = |file: &File| file.size.saturating_sub(disk::size(&disk::part(&dir.join(&file.path))));
    let cut = if cuts { perceptual::SIZE } else { 0 };
    let needed = missing.iter().map(rest).fold(cut, u64::saturating_add);
    let free = disk::free_space(dir).map_err(Error::io(dir))?;
    if missing.is_empty() || needed <= free {
        return Ok(());
    }
    Err(Error::Space { path: dir.to_owned(), free, needed })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::Client(format!("a thread has failed: {e}"))))
}

/// What is to be fetched, as it is stored.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Plan {
    /// The hash that each file, and so its `NAME.part`, is for.
    hashes: BTreeMap<String, Hash>,
    /// Files of earlier plans.
    dropped: BTreeSet<String>,
}

/// The state of a fetch, on the disk; one process at a time owns it.
struct Work {
    dir: PathBuf,
    work: PathBuf,
    /// Holds the file lock until the end.
    _own: Disk,
}

impl Work {
    fn begin(dir: &Path) -> Result<Self> {
        let work = dir.join(WORK);
        let ours = work.is_dir() || dir.join(LOCK).is_file();
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        if !ours && fs::read_dir(dir).map_err(Error::io(dir))?.next().is_some() {
            return Err(Error::Occupied(dir.to_owned()));
        }
        fs::create_dir_all(&work).map_err(Error::io(&work))?;
        let path = work.join("busy");
        let own = Disk::create(&path).map_err(Error::io(&path))?;
        match own.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), work, _own: own }),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Busy(dir.to_owned())),
            Err(fs::TryLockError::Error(source)) => Err(Error::io(path)(source)),
        }
    }

    /// The lock of the bundle before. One that cannot be read counts as missing: all is compared with the hub anyway.
    fn before(&self) -> Option<Lock> {
        Lock::read(&self.dir).or_else(|_| Lock::read_file(&self.work.join("before.lock"))).ok()
    }

    /// Stores what is to be fetched, and removes parts of other contents. Returns the files of earlier plans
    /// that are not in this one.
    fn plan<'a>(&self, files: impl Iterator<Item = &'a File>) -> Result<BTreeSet<String>> {
        let path = self.work.join("plan.json");
        let text = fs::read(&path).unwrap_or_default();
        let mut old: Plan = serde_json::from_slice(&text).unwrap_or_default();
        let hashes: BTreeMap<String, Hash> = files.map(|file| (file.path.clone(), file.origin.hash.clone())).collect();
        for (name, _) in old.hashes.iter().filter(|(name, hash)| hashes.get(*name) != Some(hash)) {
            disk::remove(&disk::part(&self.dir.join(name)))?;
        }
        old.dropped.extend(old.hashes.into_keys());
        old.dropped.retain(|name| !hashes.contains_key(name));
        let plan = Plan { hashes, dropped: old.dropped };
        let text = serde_json::to_vec(&plan).map_err(|e| Error::io(&path)(e.into()))?;
        disk::write(&path, &text)?;
        Ok(plan.dropped)
    }

    /// Before files change: the bundle is no longer complete.
    fn remove_lock(&self) -> Result<()> {
        let lock = self.dir.join(LOCK);
        if lock.is_file() {
            fs::rename(&lock, self.work.join("before.lock")).map_err(Error::io(&lock))?;
        }
        Ok(())
    }

    /// The bundle is complete.
    fn end(self) -> Result<()> {
        fs::remove_dir_all(&self.work).map_err(Error::io(&self.work))
    }
}
