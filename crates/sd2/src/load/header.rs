//! What the header of a safetensors file says.

use std::ops::Range;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

/// A tensor in a file, under the name that this crate gives it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<i64>,
    /// Where its bytes lie in the file.
    pub(crate) range: Range<usize>,
}

/// The tensors of a file whose data begin at `data`.
pub(crate) fn tensors(metadata: &Metadata, data: usize) -> Vec<Named> {
    let found = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let shape = info.shape.iter().map(|&n| n as i64).collect();
        Named { name, dtype: info.dtype, shape, range: data + info.data_offsets.0..data + info.data_offsets.1 }
    };
    metadata.tensors().into_iter().map(found).collect()
}
