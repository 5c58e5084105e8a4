//! Helpers of this crate's unit tests.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

/// Normally distributed numbers in fp32 on the CPU. The n-th draw of a test is the same whatever runs beside it.
pub(crate) fn random(shape: &[i64]) -> Tensor {
    /// libtorch has one generator for the process: nobody else may draw between seed and numbers.
    static GENERATOR: Mutex<()> = Mutex::new(());
    thread_local! {
        /// A test has a thread of its own. The first seeds make a map whose gradient is 0, so that no error is
        /// relative to anything.
        static SEED: Cell<i64> = const { Cell::new(100) };
    }
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(SEED.replace(SEED.get() + 1));
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

/// `|found - expected| / |expected|`
pub(crate) fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let norm = |x: &Tensor| x.norm().double_value(&[]);
    let [found, expected] = [found, expected].map(|x| x.to_kind(Kind::Double));
    norm(&(found - &expected)) / norm(&expected)
}
