//! Files that are whole or not there, and room for them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What follows a file's name until it is whole.
const PART: &str = "part";

/// The name of a file until it is whole.
pub(crate) fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(PART);
    name.into()
}

/// Gives a file that is whole, and on the disk, its final name.
pub(crate) fn settle(part: &Path, path: &Path) -> Result<()> {
    fs::rename(part, path).map_err(Error::io(path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io(dir))
}

/// Writes a file whole, or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = part(path);
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io(&part))?;
    settle(&part, path)
}

/// Removes a file that need not be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

/// Bytes of a file; 0 where there is none.
pub(crate) fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| if found.is_file() { found.len() } else { 0 })
}

/// Free bytes of the disk that a folder is on.
pub(crate) fn free(dir: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(dir).map_err(|e| Error::io(dir)(e.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// A number of bytes as people write it.
pub(crate) fn amount(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    match units.iter().find(|(_, unit)| bytes as f64 >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit),
        None => format!("{bytes} bytes"),
    }
}
