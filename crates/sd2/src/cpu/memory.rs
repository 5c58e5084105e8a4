//! The numbers of tensors in a CPU's memory as slices.

use std::ptr::NonNull;
use std::slice;
use std::slice::Chunks;

use tch::{Device, Tensor};

use super::numbers::Number;

/// All numbers of a tensor in the order of memory.
///
/// # Panics
/// If the tensor is not on the CPU, has another dtype, or has gaps.
pub(super) fn numbers<T: Number>(tensor: &Tensor) -> &[T] {
    let Some(data) = data::<T>(tensor) else { return &[] };
    #[expect(unsafe_code, reason = "libtorch has no safe access to the numbers of a tensor")]
    // SAFETY: `data` points to `numel` numbers of the type `T` in the CPU's memory, which live as long as the tensor
    // that is borrowed. Nothing writes to them meanwhile: tensors are changed in place through `&mut` only, and the
    // kernels, which alone can call this, borrow no other handle of the same storage mutably.
    unsafe {
        slice::from_raw_parts(data.as_ptr(), tensor.numel())
    }
}

/// The numbers of each sample of a channels-last batch, pixel by pixel.
///
/// # Panics
/// As [`numbers`], and if the batch is not channels-last.
pub(super) fn samples<T: Number>(map: &Tensor) -> Chunks<'_, T> {
    assert!(map.permute([0, 2, 3, 1]).is_contiguous(), "a channels-last map");
    numbers(map).chunks(sample_len(&map.size()))
}

/// A new contiguous tensor of the shape `size` on the CPU, whose numbers `fill` sets. Before, they are arbitrary.
pub(super) fn filled<T: Number>(size: &[i64], fill: impl FnOnce(&mut [T])) -> Tensor {
    let tensor = Tensor::empty(size, (T::KIND, Device::Cpu));
    if let Some(data) = data::<T>(&tensor) {
        #[expect(unsafe_code, reason = "libtorch has no safe access to the numbers of a tensor")]
        // SAFETY: `data` points to `numel` numbers of the type `T` in the CPU's memory. The tensor was just made, so
        // there is no other handle of its storage, and it outlives the slice. libtorch allocated the memory where the
        // compiler cannot see it, so its bytes are arbitrary but initialised, and every bit pattern is a number.
        let numbers = unsafe { slice::from_raw_parts_mut(data.as_ptr(), tensor.numel()) };
        fill(numbers);
    }
    tensor
}

/// A new channels-last batch `[n, channels, h, w]`; `fill` gets the numbers of all samples, pixel by pixel.
pub(super) fn filled_map<T: Number>([n, channels, h, w]: [i64; 4], fill: impl FnOnce(&mut [T])) -> Tensor {
    filled(&[n, h, w, channels], fill).permute([0, 3, 1, 2])
}

/// How many numbers a sample of a batch of some shape has.
pub(super) fn sample_len(size: &[i64]) -> usize {
    (size[1..].iter().product::<i64>() as usize).max(1)
}

/// Where the numbers of a tensor lie, all of them without gaps; `None` if it is empty.
fn data<T: Number>(tensor: &Tensor) -> Option<NonNull<T>> {
    assert_eq!(tensor.device(), Device::Cpu, "a tensor in the CPU's memory");
    assert_eq!(tensor.kind(), T::KIND, "a tensor of the kernel's dtype");
    let channels_last = || tensor.dim() == 4 && tensor.permute([0, 2, 3, 1]).is_contiguous();
    assert!(tensor.is_contiguous() || channels_last(), "a tensor without gaps");
    if tensor.numel() == 0 {
        return None;
    }
    let data = NonNull::new(tensor.data_ptr().cast::<T>()).expect("a tensor with numbers has memory");
    assert!(data.is_aligned(), "numbers are aligned");
    Some(data)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn numbers_are_those_that_were_filled_in() {
        let fill = |numbers: &mut [f32]| numbers.copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(numbers::<f32>(&filled(&[2, 4], fill))[5], 6.0);
        let map = filled_map([2, 2, 1, 2], fill);
        assert_eq!(map.double_value(&[0, 0, 0, 1]), 3.0);
        assert_eq!(samples::<f32>(&map).nth(1), Some([5.0, 6.0, 7.0, 8.0].as_slice()));
        let empty = filled(&[0, 3], |_: &mut [f32]| panic!("there is nothing to fill"));
        assert!(numbers::<f32>(&empty).is_empty());
    }

    #[test]
    #[should_panic(expected = "a tensor of the kernel's dtype")]
    fn another_dtype_is_refused() {
        numbers::<f32>(&Tensor::zeros([2], (Kind::Int, Device::Cpu)));
    }

    #[test]
    #[should_panic(expected = "a tensor without gaps")]
    fn gaps_are_refused() {
        numbers::<f32>(&Tensor::zeros([4, 4], (Kind::Float, Device::Cpu)).narrow(1, 0, 2));
    }
}
