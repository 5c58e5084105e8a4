//! The numbers of feature maps, whatever their dtype. All arithmetic is in fp32.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use half::{bf16, f16};
use tch::{Kind, Tensor};

/// A kernel that is compiled for every dtype of feature maps.
pub(super) trait ForDtype {
    fn run<T: Number>(self) -> Tensor;
}

/// Runs a kernel for the dtype of its maps.
pub(super) fn for_dtype(kind: Kind, kernel: impl ForDtype) -> Tensor {
    match kind {
        Kind::Float => kernel.run::<f32>(),
        Kind::BFloat16 => kernel.run::<bf16>(),
        Kind::Half => kernel.run::<f16>(),
        _ => panic!("feature maps are f32, bf16 or f16, not {kind:?}"),
    }
}

/// A number of a feature map. Every bit pattern is one.
pub(super) trait Number: Copy + Send + Sync + 'static {
    const KIND: Kind;

    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

/// Rounds as `half` does, but without branches, which would keep loops from being vectorised.
impl Number for bf16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        Self::from_bits(if value.is_nan() { 0x7fc0 } else { rounded as u16 })
    }
}

impl Number for f16 {
    const KIND: Kind = Kind::Half;

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_half_does() {
        for value in (0..10_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))) {
            let (found, expected) = (<bf16 as Number>::narrow(value), bf16::from_f32(value));
            assert!(found == expected || (found.is_nan() && expected.is_nan()), "{value}");
        }
    }
}
