//! The content of a file of a model, wherever it lies.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};

/// The content of a file.
pub(crate) enum Bytes {
    Static(&'static [u8]),
    Mapped(Mmap),
    Owned(Vec<u8>),
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
            Self::Owned(bytes) => bytes,
        }
    }
}

/// The content of a file on disk.
pub(crate) fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    #[expect(unsafe_code, reason = "gigabytes of weights go to their device without a copy of the file in memory")]
    // SAFETY: the map is read-only, and by the contract of `Bundle` nobody changes the file while it exists.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::Mapped(map))
}
