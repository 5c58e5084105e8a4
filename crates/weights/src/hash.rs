//! The hashes by which a hub knows its files, computed while bytes pass by.

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The hash of a content, in lowercase hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// SHA-256 of the bytes; hubs know large files by it.
    Sha256(String),
    /// SHA-1 of a git blob; hubs know small files by it.
    Git(String),
}

impl Hash {
    /// Whether the sums are those of a content with this hash.
    pub(crate) fn fits(&self, sums: &Sums) -> bool {
        match self {
            Self::Sha256(hash) => *hash == sums.sha256,
            Self::Git(hash) => sums.git.as_ref() == Some(hash),
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hash) => write!(f, "sha256 {hash}"),
            Self::Git(hash) => write!(f, "git {hash}"),
        }
    }
}

/// What was computed of a content.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    pub(crate) size: u64,
    pub(crate) sha256: String,
    /// Computed only for files that the hub knows by it.
    pub(crate) git: Option<String>,
}

impl Sums {
    /// The sum that can be compared with `hash`.
    pub(crate) fn like(&self, hash: &Hash) -> Hash {
        match (hash, &self.git) {
            (Hash::Git(_), Some(git)) => Hash::Git(git.clone()),
            _ => Hash::Sha256(self.sha256.clone()),
        }
    }
}

/// Computes sums.
pub(crate) struct Hasher {
    size: u64,
    sha256: Sha256,
    git: Option<Sha1>,
}

impl Hasher {
    /// Computes what can be compared with `hash`, for a content of `size` bytes.
    pub(crate) fn of(hash: &Hash, size: u64) -> Self {
        let git = matches!(hash, Hash::Git(_)).then(|| {
            let mut git = Sha1::new();
            git.update(format!("blob {size}\0"));
            git
        });
        Self { git, ..Self::plain() }
    }

    /// Computes SHA-256 only.
    pub(crate) fn plain() -> Self {
        Self { size: 0, sha256: Sha256::new(), git: None }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    /// Reads to the end.
    pub(crate) fn read(&mut self, mut from: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.update(&buffer[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub(crate) fn finish(self) -> Sums {
        let git = self.git.map(|git| hex::encode(git.finalize()));
        Sums { size: self.size, sha256: hex::encode(self.sha256.finalize()), git }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_sha256sum_and_git() {
        let mut hasher = Hasher::of(&Hash::Git(String::new()), 6);
        hasher.read(&b"hello\n"[..]).unwrap();
        let sums = hasher.finish();
        assert_eq!(sums.sha256, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
        assert_eq!(sums.git.as_deref(), Some("ce013625030ba8dba906f756967f9e9ca394464a"));
        assert!(Hash::Git("ce013625030ba8dba906f756967f9e9ca394464a".into()).fits(&sums));
        assert!(!Hash::Sha256("ce013625030ba8dba906f756967f9e9ca394464a".into()).fits(&sums));
    }
}
