//! Random bytes that nobody can guess.

use std::fmt::Write as _;
use std::io;

use ring::rand::{SecureRandom as _, SystemRandom};

/// Random bytes of the system.
///
/// # Errors
/// If the system gives none.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| io::Error::other("the system gives no random bytes"))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
