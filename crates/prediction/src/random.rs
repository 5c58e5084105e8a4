//! Random bytes that nobody can guess.

use std::io;

use ring::rand::{SecureRandom as _, SystemRandom};

/// Random bytes of the system.
///
/// # Errors
/// If the system has none.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| io::Error::other("the system has no random bytes"))
}
