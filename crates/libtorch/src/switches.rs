//! Switches of libtorch's GPU half. They hold for the whole process, and can be set before CUDA is opened.

use crate::{Error, check, ffi};

/// TF32: whether f32 is rounded to 10 bits of mantissa where a GPU multiplies. libtorch does so in convolutions and not
/// in products of matrices, unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tf32 {
    /// In convolutions.
    pub convolutions: bool,
    /// In products of matrices.
    pub products: bool,
}

impl Tf32 {
    /// f32 that means f32.
    pub const OFF: Self = Self { convolutions: false, products: false };

    /// What is set.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn get() -> Result<Self, Error> {
        let (mut convolutions, mut products) = (false, false);
        check(ffi::shim_tf32(&mut convolutions, &mut products))?;
        Ok(Self { convolutions, products })
    }

    /// Sets it.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn set(self) -> Result<(), Error> {
        check(ffi::shim_set_tf32(self.convolutions, self.products))
    }
}

/// Which kernels of attention libtorch may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// The one that is called flash, in version 2.
    pub flash: bool,
    /// The memory-efficient one of CUTLASS.
    pub efficient: bool,
    /// Products and a softmax, with all scores in memory.
    pub math: bool,
    /// cuDNN's, which plans for every new shape.
    pub cudnn: bool,
}

impl Attention {
    /// What is set.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn get() -> Result<Self, Error> {
        let mut kernels = [false; 4];
        check(ffi::shim_attention(&mut kernels))?;
        let [flash, efficient, math, cudnn] = kernels;
        Ok(Self { flash, efficient, math, cudnn })
    }

    /// Sets it.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn set(self) -> Result<(), Error> {
        check(ffi::shim_set_attention(self.flash, self.efficient, self.math, self.cudnn))
    }
}

/// Whether cuDNN measures its algorithms for each new shape instead of guessing the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Benchmark {
    /// Whether it does.
    pub on: bool,
    /// How many it tries; 0 for all.
    pub limit: u32,
}

impl Benchmark {
    /// What is set.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn get() -> Result<Self, Error> {
        let (mut on, mut limit) = (false, 0);
        check(ffi::shim_cudnn_benchmark(&mut on, &mut limit))?;
        Ok(Self { on, limit: limit.max(0) as u32 })
    }

    /// Sets it.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn set(self) -> Result<(), Error> {
        check(ffi::shim_set_cudnn_benchmark(self.on, self.limit as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is set away from its default and back; they are global, so one test has them all.
    #[test]
    fn switches_stay_as_they_are_set() {
        let (tf32, attention, benchmark) = (Tf32::get().unwrap(), Attention::get().unwrap(), Benchmark::get().unwrap());
        assert_eq!(tf32, Tf32 { convolutions: true, products: false }, "the defaults that the documents name");
        assert!(attention.flash && attention.efficient && attention.math && attention.cudnn && !benchmark.on);

        for other in [Tf32::OFF, Tf32 { convolutions: true, products: true }, tf32] {
            other.set().unwrap();
            assert_eq!(Tf32::get(), Ok(other));
        }
        for other in [Attention { cudnn: false, ..attention }, Attention { flash: false, ..attention }, attention] {
            other.set().unwrap();
            assert_eq!(Attention::get(), Ok(other));
        }
        for other in [Benchmark { on: true, limit: 3 }, benchmark] {
            other.set().unwrap();
            assert_eq!(Benchmark::get(), Ok(other));
        }
    }
}
