//! Names in URLs that open something without a token: whoever was given one may use it, and nobody can make one.
//!
//! A name is `MAC.ID`: an HMAC-SHA256 of what it opens, cut to 160 bits, and the id in base64.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::files;
use crate::random;

/// The file that keeps the key, in the data folder.
const FILE: &str = "url-secret";
/// The mode of that file.
const OWNER_ONLY: u32 = 0o600;
/// Bytes of a key.
const BYTES: usize = 32;
/// Bytes of a MAC in a name.
const MAC: usize = 20;

/// Makes names and reads them.
#[derive(Clone, Debug)]
pub struct Signer(hmac::Key);

impl Signer {
    /// A signer whose names are valid as long as the process.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn random() -> io::Result<Self> {
        Ok(Self::of(&random::bytes::<BYTES>()?))
    }

    /// The signer of a data folder, made on first use. Only the owner of its file may read it.
    ///
    /// # Errors
    /// If the file cannot be read or written, or holds something else.
    pub fn kept_in(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let wrong = || io::Error::other(format!("`{FILE}` is damaged; remove it, and another one is made"));
                Self::parse(&text).ok_or_else(wrong)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = random::bytes::<BYTES>()?;
                files::write(&path, format!("{}\n", hex::encode(key)).as_bytes(), OWNER_ONLY)?;
                Ok(Self::of(&key))
            }
            Err(error) => Err(error),
        }
    }

    /// A key for [`Self::parse`].
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn make() -> io::Result<String> {
        Ok(hex::encode(random::bytes::<BYTES>()?))
    }

    /// The signer of a key in hexadecimal; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let key = hex::decode(text.trim_end()).ok().filter(|key| key.len() == BYTES)?;
        Some(Self::of(&key))
    }

    fn of(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The name of something of a kind.
    pub fn name(&self, kind: &str, id: &str) -> String {
        let mac = hmac::sign(&self.0, &signed(kind, id));
        format!("{}.{}", hex::encode(&mac.as_ref()[..MAC]), URL_SAFE_NO_PAD.encode(id))
    }

    /// The id of a name, if it was made here for this kind.
    pub fn id(&self, kind: &str, name: &str) -> Option<String> {
        let (_, id) = name.split_once('.')?;
        let id = String::from_utf8(URL_SAFE_NO_PAD.decode(id).ok()?).ok()?;
        let expected = self.name(kind, &id);
        // Whoever measures how long this takes learns the beginning of a digest of both, and nothing of either.
        let digest = |text: &str| hmac::sign(&self.0, text.as_bytes());
        (digest(&expected).as_ref() == digest(name).as_ref()).then_some(id)
    }
}

/// What the MAC is of: no two pairs give the same.
fn signed(kind: &str, id: &str) -> Vec<u8> {
    format!("{}\n{kind}{id}", kind.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_name_opens_what_it_was_made_for_and_nothing_else() {
        let signer = Signer::random().unwrap();
        for id in ["a", "pred_1", "a/b c", "日本", ""] {
            let name = signer.name("stream", id);
            assert_eq!(signer.id("stream", &name).as_deref(), Some(id));
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{name}");
            assert_eq!(signer.id("output", &name), None, "another kind");
            assert_eq!(Signer::random().unwrap().id("stream", &name), None, "another key");
            let other = signer.name("stream", "other");
            let forged = format!("{}.{}", name.split_once('.').unwrap().0, other.split_once('.').unwrap().1);
            assert_eq!(signer.id("stream", &forged), None, "another id");
        }
        assert!(["", ".", "a.b", "日本.日本"].iter().all(|wrong| signer.id("stream", wrong).is_none()));
        assert_ne!(signer.name("ab", "c"), signer.name("a", "bc"));
    }

    #[test]
    fn names_outlive_the_process_and_the_key_is_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let name = Signer::kept_in(dir.path()).unwrap().name("output", "a");
        assert_eq!(Signer::kept_in(dir.path()).unwrap().id("output", &name).as_deref(), Some("a"));
        let path = dir.path().join(FILE);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "half").unwrap();
        assert!(Signer::kept_in(dir.path()).unwrap_err().to_string().contains(FILE));
    }
}
