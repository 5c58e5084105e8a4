//! What the tests of this crate's insides share.

use tch::{Device, Kind, Tensor};

/// Normally distributed, in fp32 on the CPU.
pub(crate) fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

/// `|found - expected| / |expected|`
pub(crate) fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let norm = |x: &Tensor| x.norm().double_value(&[]);
    let [found, expected] = [found, expected].map(|x| x.to_kind(Kind::Double));
    norm(&(found - &expected)) / norm(&expected)
}
