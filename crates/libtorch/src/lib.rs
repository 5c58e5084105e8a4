//! What `tch` does not pass on of libtorch: [switches](Tf32) of its GPU half, the [statistics](memory) of its
//! allocator, [events](Mark), a [backward pass](backward) with given gradients, and [random numbers](randn) of a seed.
//!
//! `src/shim.cpp` has the C++ side. It is linked with the half of libtorch without CUDA, so that one program runs with
//! and without the other half.

mod autograd;
mod ffi;
mod gpu;
pub mod profile;
mod random;
mod switches;

use std::ffi::{CStr, c_char};

pub use autograd::backward;
pub use gpu::{Mark, Memory, memory, release, reset_peaks};
pub use random::randn;
pub use switches::{Attention, Benchmark, Tf32};

/// An exception of libtorch, by its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// The message that a function of the shim returned, which is null if there is none.
fn check(message: *mut c_char) -> Result<(), Error> {
    if message.is_null() {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "a string of C")]
    // SAFETY: the shim returns null or a string that ends with 0, which is the caller's until it is freed, here and
    // once.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        ffi::shim_free(message);
        text
    };
    Err(Error(text))
}
