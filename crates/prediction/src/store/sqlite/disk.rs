//! The disk below a store: whether it can be written, how much room it has, and a reserve that is given up to make
//! room.
//!
//! The reserve is a file beside the database. Removing records writes a little before it frees anything; on a full disk
//! the reserve pays for that. New predictions are refused while there is no reserve, so that what runs can still be
//! stored.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::mutex::lock;
use crate::store::error::StoreError;

/// The size of the reserve where there is room for it.
const RESERVE: u64 = 4 << 20;
/// The reserve is at most this part of the disk.
const PART: u64 = 16;
/// Sizes are multiples of this.
const PAGE: u64 = 4096;
/// The least reserve that is worth it.
const PART_OF_RESERVE: u64 = 64 << 10;
/// How long the writer waits for something to do before it looks after the disk.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same after a failure.
const IMPATIENCE: Duration = Duration::from_millis(250);
/// How often the disk is looked at while there is much to do.
const LOOK: Duration = Duration::from_millis(250);

/// The disk of a store.
pub(super) struct Disk {
    file: PathBuf,
    reserve: PathBuf,
    /// The size of the reserve; 0 if that of the disk is not known.
    size: u64,
    /// Device and inode of the database, to notice that it is moved or removed.
    identity: Option<(u64, u64)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Why the last write failed.
    failed: Option<String>,
    moved: bool,
    /// There is less of a reserve, or less room beside it, than there should be.
    low: bool,
    looked: Option<Instant>,
}

/// Free bytes of the disk that a path is on, and all of them.
fn room(path: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some((found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize)))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// Gives up the reserve of a folder before its database is opened, if the disk is too full for that.
pub(super) fn make_room(dir: &Path) {
    if room(dir).is_some_and(|(free, _)| free < RESERVE / PART) {
        let _ = fs::remove_file(dir.join("reserve"));
    }
}

impl Disk {
    /// The disk of an open database.
    pub(super) fn new(dir: &Path, file: PathBuf) -> Self {
        let reserve = dir.join("reserve");
        let size = room(dir).map_or(0, |(_, all)| RESERVE.min(all / PART) / PAGE * PAGE);
        let disk = Self { identity: identity(&file), file, reserve, size, state: Mutex::default() };
        disk.look();
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The database.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// How long the writer waits before it looks again.
    pub(super) fn patience(&self) -> Duration {
        let state = self.state();
        if state.failed.is_some() || state.low || state.moved { IMPATIENCE } else { PATIENCE }
    }

    /// Notes how a write went.
    pub(super) fn note(&self, outcome: &Result<(), StoreError>) {
        let mut state = self.state();
        match outcome {
            Err(error @ (StoreError::Engine(_) | StoreError::Full(_))) => {
                let why = error.to_string();
                if state.failed.is_none() {
                    tracing::error!(%error, "the store cannot be written; new predictions are refused until it can");
                }
                state.failed = Some(why);
            }
            Err(StoreError::Corrupt(_) | StoreError::Closed) => {}
            Ok(()) => {
                if state.failed.take().is_some() {
                    tracing::info!("the store can be written again");
                }
            }
        }
    }

    /// Whether the last write failed.
    pub(super) fn has_failed(&self) -> bool {
        self.state().failed.is_some()
    }

    /// Whether there is little room left.
    pub(super) fn is_low(&self) -> bool {
        self.state().low
    }

    /// Looks how much room there is and whether the database is where it was, and restores the reserve if it can be.
    pub(super) fn look(&self) {
        let moved = self.identity.is_some() && identity(&self.file) != self.identity;
        let low = !moved && self.size > 0 && self.is_short();
        let mut state = self.state();
        state.looked = Some(Instant::now());
        if moved && !state.moved {
            tracing::error!(file = %self.file.display(), "the database was moved or removed while it is in use");
        }
        (state.moved, state.low) = (moved, low);
    }

    /// Restores the reserve as far as there is room; whether it and what is free are less than twice its size.
    fn is_short(&self) -> bool {
        let Some((free, _)) = room(&self.file) else { return false };
        let there = self.reserve.metadata().map_or(0, |found| found.len());
        if there + free >= 2 * self.size {
            return there < self.size && self.fill(self.size) < self.size;
        }
        // A part of it keeps others from taking all the room that was made.
        if there == 0 && free >= 2 * PART_OF_RESERVE {
            self.fill(free / 2);
        }
        true
    }

    /// Looks if that was not done lately.
    pub(super) fn look_now_and_then(&self) {
        let looked = self.state().looked;
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.look();
        }
    }

    /// Makes a reserve; how large it is.
    fn fill(&self, size: u64) -> u64 {
        let size = size / PAGE * PAGE;
        let Ok(mut file) = File::create(&self.reserve) else { return 0 };
        let filled = match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            // Not every file system can.
            Err(_) => (0..size / PAGE).try_for_each(|_| file.write_all(&[0; PAGE as usize])),
        };
        if filled.is_err() {
            let _ = fs::remove_file(&self.reserve);
            return 0;
        }
        size
    }

    /// Gives up the reserve; false if there is none.
    pub(super) fn give_up(&self) -> bool {
        let gone = fs::remove_file(&self.reserve).is_ok();
        if gone {
            tracing::warn!(
                bytes = self.size,
                "the disk is full: the reserve is given up so that records can be removed"
            );
            let mut state = self.state();
            state.low = true;
            // What was given up is not taken back before it was used.
            state.looked = Some(Instant::now());
        }
        gone
    }

    /// Why new predictions should be refused.
    pub(super) fn trouble(&self) -> Option<String> {
        let (state, file) = (self.state(), self.file.display());
        if state.moved {
            return Some(format!(
                "`{file}` was moved or removed while the server uses it; put it back, or restart the server"
            ));
        }
        if let Some(why) = &state.failed {
            return Some(format!("the store cannot be written: {why}"));
        }
        state.low.then(|| format!("the disk of `{file}` is nearly full; make room, or delete predictions"))
    }

    /// Refuses what is new while there is trouble.
    pub(super) fn admit(&self) -> Result<(), StoreError> {
        self.look_now_and_then();
        let state = self.state();
        if state.moved || state.low {
            drop(state);
            return Err(StoreError::Full(self.trouble().unwrap_or_default()));
        }
        Ok(())
    }

    /// The store is closed.
    pub(super) fn close(&self) {
        self.look();
    }
}
