//! What a device computes, kernel by kernel, by libtorch's own profiler.

use std::ffi::{CStr, c_char};
use std::ptr;

use crate::{Error, check, ffi};

/// Begins to record.
///
/// # Errors
/// If libtorch fails, or records already.
pub fn start() -> Result<(), Error> {
    check(ffi::shim_profile_start())
}

/// Ends the recording. Returns a line for each kernel of the GPU, without CUDA for each operation of the CPU, inner
/// ones included: seconds, calls and name, with tabs between them.
///
/// # Errors
/// If libtorch fails, or does not record.
pub fn stop() -> Result<String, Error> {
    let mut text: *mut c_char = ptr::null_mut();
    check(ffi::shim_profile_stop(&mut text))?;
    #[expect(unsafe_code, reason = "a string of C")]
    // SAFETY: where it does not fail the shim sets a string that ends with 0, which is the caller's until it is freed,
    // here and once.
    let lines = unsafe {
        let lines = CStr::from_ptr(text).to_string_lossy().into_owned();
        ffi::shim_free(text);
        lines
    };
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn operations_are_counted() {
        start().unwrap();
        let x = Tensor::ones([8, 8], (Kind::Float, Device::Cpu));
        for _ in 0..3 {
            drop(x.matmul(&x));
        }
        let lines = stop().unwrap();
        let of_product = lines.lines().find(|line| line.ends_with("\taten::matmul")).unwrap();
        let [seconds, count, _] = of_product.split('\t').collect::<Vec<_>>()[..] else { panic!("{of_product}") };
        assert!(seconds.parse::<f64>().unwrap() > 0.0 && count == "3", "{of_product}");
        assert!(stop().is_err(), "nothing is recorded any more");
    }
}
