//! What a failure of SQLite means, and what to do about it.

use std::path::Path;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::store::error::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error_code() else { return Self::Engine(error.to_string()) };
        let extended = error.sqlite_error().map_or(0, |error| error.extended_code);
        let advice = match code {
            ErrorCode::DiskFull => return Self::Full("the disk is full; make room, or delete predictions".to_owned()),
            _ if extended == ffi::SQLITE_IOERR_SHMSIZE || extended == ffi::SQLITE_IOERR_SHMOPEN => {
                "make room on its disk, and check that this user may write to its folder"
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "another program has locked it; end that program",
            ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => DAMAGED,
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                "check that this user may write to the file and its folder, and that the disk is not mounted read-only"
            }
            ErrorCode::FileLockingProtocolFailed | ErrorCode::NoLargeFileSupport => NO_LOCKS,
            ErrorCode::SystemIoFailure if is_lock(extended) => NO_LOCKS,
            ErrorCode::SystemIoFailure => "its disk fails; the log of the kernel says how",
            _ => return Self::Engine(error.to_string()),
        };
        Self::Engine(format!("{error}; {advice}"))
    }
}

/// What a file system without locks means for a store.
pub(super) const NO_LOCKS: &str =
    "its file system cannot lock files, which a store needs; choose a `--data-dir` on a local disk";

/// What to do about a damaged database.
pub(super) const DAMAGED: &str = "move it, its `-wal` and its `-shm` away to start without the predictions that it holds, \
    or save what can be read with `sqlite3 FILE .recover`";

fn is_lock(extended: i32) -> bool {
    [
        ffi::SQLITE_IOERR_LOCK,
        ffi::SQLITE_IOERR_UNLOCK,
        ffi::SQLITE_IOERR_RDLOCK,
        ffi::SQLITE_IOERR_CHECKRESERVEDLOCK,
        ffi::SQLITE_IOERR_SHMLOCK,
        ffi::SQLITE_IOERR_SHMMAP,
    ]
    .contains(&extended)
}

impl StoreError {
    /// The error with the file that it is about.
    pub(super) fn of(self, file: &Path) -> Self {
        let named = |text: String| {
            let file = file.display().to_string();
            if text.contains(&file) { text } else { format!("`{file}`: {}", text.replace("FILE", &file)) }
        };
        match self {
            Self::Engine(text) => Self::Engine(named(text)),
            Self::Full(text) => Self::Full(named(text)),
            Self::Corrupt(text) => Self::Corrupt(named(text)),
            Self::Closed => Self::Closed,
        }
    }
}
