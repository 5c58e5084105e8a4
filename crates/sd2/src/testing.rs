//! Helpers of this crate's unit tests.

use std::cell::Cell;

use tch::{Kind, Tensor};

/// Normally distributed numbers in fp32 on the CPU. The n-th draw of a test is the same whatever runs beside it.
pub(crate) fn random(shape: &[i64]) -> Tensor {
    thread_local! {
        /// A test has a thread of its own. The first seeds make a map whose gradient is 0, so that no error is
        /// relative to anything.
        static SEED: Cell<u64> = const { Cell::new(100) };
    }
    libtorch::randn(SEED.replace(SEED.get() + 1), shape).unwrap()
}

/// `|found - expected| / |expected|`
pub(crate) fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let norm = |x: &Tensor| x.norm().double_value(&[]);
    let [found, expected] = [found, expected].map(|x| x.to_kind(Kind::Double));
    norm(&(found - &expected)) / norm(&expected)
}
