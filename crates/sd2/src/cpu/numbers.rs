//! The numbers of feature maps in a CPU's memory, whatever their dtype, and threads to go over them with.

#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the processor's instructions")]

use std::slice::{Chunks, ChunksMut};
use std::thread;

use half::{bf16, f16};
use tch::{Kind, Tensor};

/// So many numbers of a map are worth another thread.
const WORTH_A_THREAD: usize = 1 << 18;

/// Something to do with numbers of any of the dtypes of feature maps.
pub(crate) trait Job {
    fn run<T: Number>(self);
}

pub(crate) fn by_kind(kind: Kind, job: impl Job) {
    match kind {
        Kind::Float => job.run::<f32>(),
        Kind::BFloat16 => job.run::<bf16>(),
        Kind::Half => job.run::<f16>(),
        _ => panic!("feature maps are f32, bf16 or f16, not {kind:?}"),
    }
}

/// A number of a feature map.
pub(crate) trait Number: Copy + Send + Sync + 'static {
    fn wide(self) -> f32;
    fn narrow(value: f32) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

/// As `half` has it, without branches.
impl Number for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
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
    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// The samples of a channels-last map, each pixel by pixel.
pub(crate) fn samples<T: Number>(map: &Tensor) -> Chunks<'_, T> {
    numbers(map).chunks(each(map))
}

/// The same of a map that is being made.
pub(crate) fn samples_mut<T: Number>(map: &mut Tensor) -> ChunksMut<'_, T> {
    let each = each(map);
    numbers_mut(map).chunks_mut(each)
}

/// How many numbers each sample of a channels-last map has.
fn each(map: &Tensor) -> usize {
    assert!(map.permute([0, 2, 3, 1]).is_contiguous(), "a channels-last map");
    (map.numel() / map.size()[0] as usize).max(1)
}

/// All numbers of a tensor without gaps, as they lie in memory.
pub(crate) fn numbers<T: Number>(tensor: &Tensor) -> &[T] {
    let (data, len) = memory::<T>(tensor);
    #[expect(unsafe_code, reason = "libtorch has its numbers there, and the tensor is borrowed")]
    unsafe {
        std::slice::from_raw_parts(data.cast_const(), len)
    }
}

/// The same of a tensor that is being made, of which there are no other views.
pub(crate) fn numbers_mut<T: Number>(tensor: &mut Tensor) -> &mut [T] {
    let (data, len) = memory::<T>(tensor);
    #[expect(unsafe_code, reason = "as above")]
    unsafe {
        std::slice::from_raw_parts_mut(data, len)
    }
}

/// Where the numbers of a tensor are, and how many.
fn memory<T: Number>(tensor: &Tensor) -> (*mut T, usize) {
    let len = tensor.numel();
    let by_pixels = || tensor.dim() == 4 && tensor.permute([0, 2, 3, 1]).is_contiguous();
    assert!(tensor.is_contiguous() || by_pixels(), "numbers without gaps");
    assert_eq!(tensor.kind().elt_size_in_bytes(), size_of::<T>(), "numbers of the dtype");
    (tensor.data_ptr().cast(), len)
}

/// Cuts a map into whole pixels for as many threads as libtorch would use.
pub(crate) fn parts<T>(map: &[T], channels: usize) -> impl Iterator<Item = &[T]> {
    map.chunks(part(map.len(), channels))
}

pub(crate) fn parts_mut<T>(map: &mut [T], channels: usize) -> impl Iterator<Item = &mut [T]> {
    map.chunks_mut(part(map.len(), channels))
}

fn part(len: usize, channels: usize) -> usize {
    (len / channels).div_ceil(threads_for(len)).max(1) * channels
}

/// How many threads so many numbers are worth.
pub(crate) fn threads_for(len: usize) -> usize {
    if len < WORTH_A_THREAD { 1 } else { tch::get_num_threads().max(1) as usize }
}

/// Does the work of each part in a thread of its own.
pub(crate) fn for_each<P: Send, R: Send>(parts: impl Iterator<Item = P>, work: impl Fn(P) -> R + Sync) -> Vec<R> {
    let mut parts: Vec<P> = parts.collect();
    let last = parts.pop();
    thread::scope(|scope| {
        let others: Vec<_> = parts.into_iter().map(|part| scope.spawn(|| work(part))).collect();
        let last = last.map(&work);
        others.into_iter().map(|other| other.join().expect("arithmetic does not panic")).chain(last).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_rounded_as_everywhere() {
        for value in (0..10_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))) {
            let (ours, theirs) = (<bf16 as Number>::narrow(value), bf16::from_f32(value));
            assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{value}");
        }
    }
}
