//! Random numbers from a generator of their own. Those of `tch` come from the one generator of the process, which any
//! thread may seed or draw from.

use std::ptr;

use tch::Tensor;

use crate::{Error, check, ffi};

/// Normally distributed numbers in f32 on the CPU: those of `torch.manual_seed(seed)` and `torch.randn(shape)`.
///
/// # Errors
/// If a dimension is negative, or libtorch fails.
pub fn randn(seed: u64, shape: &[i64]) -> Result<Tensor, Error> {
    let mut result = ptr::null_mut();
    #[expect(unsafe_code, reason = "a pointer to the shape")]
    // SAFETY: the shape is borrowed for longer than the call, and has the length that is given.
    check(unsafe { ffi::shim_randn(seed, shape.as_ptr(), shape.len(), &mut result) })?;
    #[expect(unsafe_code, reason = "a tensor of C++")]
    // SAFETY: where it does not fail the shim returns a tensor that nobody else owns.
    let tensor = unsafe { Tensor::from_ptr(result) };
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn numbers_are_those_of_the_generator_of_the_process() {
        for (seed, shape) in [(0, [1, 4, 3, 5]), (2, [1, 4, 64, 256]), (u64::MAX, [2, 1, 1, 7])] {
            tch::manual_seed(seed as i64);
            let expected = Tensor::randn(shape, (Kind::Float, Device::Cpu));
            assert_eq!(randn(seed, &shape).unwrap(), expected, "{seed}");
        }
        assert!(randn(1, &[-1]).is_err());
    }

    #[test]
    fn threads_do_not_disturb_each_other() {
        let expected = randn(7, &[1000]).unwrap();
        thread::scope(|scope| {
            for other in 0..4 {
                scope.spawn(move || (0..100).for_each(|_| drop(randn(other, &[1000]))));
            }
            assert!((0..100).all(|_| randn(7, &[1000]).unwrap() == expected));
        });
    }
}
