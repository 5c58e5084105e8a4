//! Signatures of webhooks, and their secret, as [Standard Webhooks](https://www.standardwebhooks.com) and Replicate
//! define them: HMAC-SHA256 over `id.timestamp.body`. Receivers share the secret, `whsec_` and base64.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;

use crate::files;
use crate::random;
use crate::redacted::Redacted;

/// What every secret begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret that is made here.
const BYTES: usize = 24;
/// Bytes that a secret may have, by the specification.
const ALLOWED: std::ops::RangeInclusive<usize> = 24..=64;
/// The file that keeps the secret, in the data folder.
const FILE: &str = "webhook-secret";
/// The mode of that file.
const OWNER_ONLY: u32 = 0o600;

/// Not a valid webhook secret; the message never contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a webhook secret is `whsec_` and the base64 of 24 to 64 bytes; make one with \
     `echo whsec_$(openssl rand -base64 24)`"
)]
pub struct Malformed;

/// What webhooks are signed with.
#[derive(Clone, Debug)]
pub struct Secret {
    key: hmac::Key,
    text: Redacted,
}

impl Secret {
    /// Parses a secret.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bytes = text.strip_prefix(PREFIX).and_then(|code| STANDARD.decode(code).ok()).ok_or(Malformed)?;
        if !ALLOWED.contains(&bytes.len()) {
            return Err(Malformed);
        }
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes), text: text.to_owned().into() })
    }

    /// Makes a secret.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn random() -> io::Result<Self> {
        let bytes = random::bytes::<BYTES>()?;
        Self::parse(&format!("{PREFIX}{}", STANDARD.encode(bytes))).map_err(io::Error::other)
    }

    /// The secret of a data folder, made on first use. Only the owner of the file may read it.
    ///
    /// # Errors
    /// If the file cannot be read or written, or holds something else.
    pub fn kept_in(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(text.trim_end()).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = Self::random()?;
                files::write(&path, format!("{}\n", secret.reveal()).as_bytes(), OWNER_ONLY)?;
                Ok(secret)
            }
            Err(error) => Err(error),
        }
    }

    /// The secret as receivers need it.
    pub fn reveal(&self) -> &str {
        self.text.reveal()
    }

    /// What only who has the secret can compute for a text: 128 bits for URLs. The key is derived for the purpose,
    /// which has no dot, so that this is never the signature of a webhook.
    pub fn capability(&self, purpose: &str, text: &str) -> String {
        let derived = hmac::sign(&self.key, purpose.as_bytes());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()), text.as_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..16])
    }

    /// The value of `webhook-signature` for a message, at a time in seconds since 1970.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut signed = hmac::Context::with_key(&self.key);
        signed.update(format!("{id}.{timestamp}.").as_bytes());
        signed.update(body);
        format!("v1,{}", STANDARD.encode(signed.sign()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_vector_of_the_specification() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn malformed_secrets_are_refused_and_not_repeated() {
        let short = format!("whsec_{}", STANDARD.encode([1; 23]));
        let long = format!("whsec_{}", STANDARD.encode([1; 65]));
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not base64!", &short, &long] {
            assert!(Secret::parse(text).is_err(), "{text}");
        }
        let secret = Secret::random().unwrap();
        assert!(!format!("{secret:?}").contains(secret.reveal()));
        // Replicate's Python client splits at underscores.
        assert_eq!(secret.reveal().matches('_').count(), 1);
    }

    #[test]
    fn a_secret_is_made_once_and_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secret::kept_in(dir.path()).unwrap();
        assert_eq!(Secret::kept_in(dir.path()).unwrap().reveal(), first.reveal());
        let path = dir.path().join(FILE);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "whsec_half").unwrap();
        assert!(!Secret::kept_in(dir.path()).unwrap_err().to_string().contains("half"));
    }
}
