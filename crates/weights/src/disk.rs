//! Files that are written whole or not at all, and room for them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The name of a file until it is whole: `NAME.part`.
pub(crate) fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Gives a file that is whole, and on the disk, its final name.
pub(crate) fn persist(part: &Path, path: &Path) -> Result<()> {
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
    persist(&part, path)
}

/// Removes a file, if it exists.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

/// Bytes of a file; 0 if it does not exist.
pub(crate) fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| if found.is_file() { found.len() } else { 0 })
}

/// Free bytes of the disk that a folder is on, as far as this user may write them.
///
/// # Errors
/// What the system says.
pub fn free_space(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
