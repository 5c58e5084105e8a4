//! What can be said of a data folder without opening its store. Nothing is changed.

use std::fs::{File, TryLockError};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::explain::{DAMAGED, NO_LOCKS};
use super::open::FILE;
use super::schema;
use crate::store::error::StoreError;
use crate::store::record::Record;

/// The greatest database that is checked page by page.
const MAX_CHECKED: u64 = 256 << 20;

/// What may be wrong with a data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether a server cannot use the folder as it is.
    pub is_problem: bool,
    /// What was found.
    pub found: String,
    /// What to do.
    pub advice: String,
}

/// Looks for what is wrong with a data folder: its file system, its lock, its database.
pub fn inspect(dir: &Path) -> Option<Finding> {
    let shown = dir.display();
    let finding =
        |is_problem, found: String, advice: &str| Some(Finding { is_problem, found, advice: advice.to_owned() });
    if let Ok(lock) = File::open(dir.join("lock")) {
        match lock.try_lock() {
            Ok(()) => {}
            // What a server uses, it looks after.
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Error(error)) => return finding(true, format!("`{shown}`: {error}"), NO_LOCKS),
        }
    }
    let file = dir.join(FILE);
    if file.exists()
        && let Err(error) = check(&file)
    {
        let text = match error.of(&file) {
            StoreError::Engine(text) | StoreError::Full(text) | StoreError::Corrupt(text) => text,
            StoreError::Closed => return None,
        };
        let (found, advice) = text.split_once("; ").unwrap_or((&text, "look at the file"));
        return finding(true, found.to_owned(), advice);
    }
    let network = network(dir)?;
    let found = format!("`{shown}` is on {network}, whose locks may not be reliable");
    finding(false, found, "choose a `--data-dir` on a local disk")
}

/// Reads what a start reads, and in small databases everything.
fn check(file: &Path) -> Result<(), StoreError> {
    // `immutable` neither makes nor needs the files beside the database.
    let escape = |byte: u8| match byte {
        _ if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let path: String = file.as_os_str().as_encoded_bytes().iter().copied().map(escape).collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)?;
    schema::check(&connection)?;
    // With a log beside it the database alone may be half of a change.
    let size =
        |suffix: &str| Path::new(&format!("{}{suffix}", file.display())).metadata().map_or(0, |found| found.len());
    if size("-wal") > 0 || size("") > MAX_CHECKED {
        return Ok(());
    }
    let whole: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if whole != "ok" {
        return Err(StoreError::Engine(format!("{whole}; {DAMAGED}")));
    }
    let tables: u64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'predictions'", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(());
    }
    let mut statement =
        connection.prepare("SELECT seq, record FROM predictions WHERE status IN ('starting', 'processing')")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, text): (u64, String) = (row.get(0)?, row.get(1)?);
        if let Err(error) = serde_json::from_str::<Record>(&text) {
            let why = format!(
                "the record of number {seq} cannot be read: {error}; it is left out; DELETE of its prediction removes it"
            );
            return Err(StoreError::Corrupt(why));
        }
    }
    Ok(())
}

/// The name of the file system, if it is one of a network.
#[cfg(target_os = "linux")]
fn network(dir: &Path) -> Option<&'static str> {
    let existing = dir.ancestors().find(|dir| dir.exists())?;
    let kinds = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "SMB"),
        (0xfe53_4d42, "SMB"),
        (0x00c3_6400, "CephFS"),
        (0x6573_5546, "a FUSE file system"),
        (0x0102_1997, "9P"),
        (0x5346_414f, "AFS"),
        (0x0bd0_0bd0, "Lustre"),
    ];
    // The type is a signed number of 64 bits here, of 32 elsewhere.
    let is = rustix::fs::statfs(existing).ok()?.f_type as u32;
    kinds.into_iter().find(|(kind, _)| *kind == is).map(|(_, name)| name)
}

#[cfg(not(target_os = "linux"))]
fn network(_: &Path) -> Option<&'static str> {
    None
}
