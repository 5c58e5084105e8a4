//! Weights from safetensors files, loaded directly to their device and dtype.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::mem;
use std::ops::Range;

use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use super::bundle::{Bundle, Bytes};
use super::error::{Error, Result};
use crate::placement::Placement;

/// All tensors of one part of a bundle. Problems are collected and reported by [`Self::finish`], all at once. After it
/// all tensors can be loaded again.
pub(crate) struct Weights {
    part: String,
    placement: Placement,
    kind: Kind,
    files: Vec<Bytes>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The tensors of the files, without those that are ignored.
    found: BTreeMap<String, Found>,
    /// The names of those that were loaded.
    loaded: BTreeSet<String>,
    problems: Vec<String>,
}

struct Found {
    file: usize,
    dtype: Dtype,
    shape: Vec<i64>,
    /// Where its bytes lie in the file.
    range: Range<usize>,
}

impl Weights {
    /// Opens `part/stem.safetensors`, its `.fp16.` variant, or the shards that an index of either names.
    pub(crate) fn open(bundle: &Bundle, part: &str, stem: &str, placement: Placement, kind: Kind) -> Result<Self> {
        let mut weights =
            Self { part: part.to_owned(), placement, kind, files: Vec::new(), state: RefCell::new(State::default()) };
        for variant in ["", ".fp16"] {
            let path = format!("{part}/{stem}{variant}.safetensors");
            if let Some(file) = bundle.find(&path)? {
                weights.add(file, &path)?;
                return Ok(weights);
            }
            for index in [
                format!("{part}/{stem}.safetensors.index{variant}.json"),
                format!("{part}/{stem}{variant}.safetensors.index.json"),
            ] {
                if let Some(bytes) = bundle.find(&index)? {
                    for shard in shards(&bytes, &index)? {
                        let path = format!("{part}/{shard}");
                        weights.add(bundle.read(&path)?, &path)?;
                    }
                    return Ok(weights);
                }
            }
        }
        Err(Error::Missing {
            wanted: format!(
                "{part}/{stem}.safetensors` or `{part}/{stem}.fp16.safetensors` or an index of shards \
                 `{part}/{stem}.safetensors.index.json"
            ),
        })
    }

    fn add(&mut self, file: Bytes, path: &str) -> Result<()> {
        let (header, metadata) = SafeTensors::read_metadata(&file).map_err(|e| Error::Weights {
            part: self.part.clone(),
            problems: vec![format!("`{path}` is not a safetensors file: {e}")],
        })?;
        // The header comes after its length, 8 bytes.
        let data = 8 + header;
        let state = self.state.get_mut();
        for (name, found) in tensors(&metadata, self.files.len(), data) {
            if state.found.insert(name.clone(), found).is_some() {
                state.problems.push(format!("`{name}` is in more than one file"));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// The root of the tree of names.
    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new() }
    }

    /// Drops tensors of the files that have no use here.
    pub(crate) fn ignore(&self, useless: impl Fn(&str) -> bool) {
        self.state.borrow_mut().found.retain(|name, _| !useless(name));
    }

    /// Whether any name in the files has this prefix.
    pub(crate) fn has(&self, prefix: &str) -> bool {
        self.state.borrow().found.keys().any(|name| name.starts_with(prefix))
    }

    /// Ends the loading.
    ///
    /// # Errors
    /// Lists every tensor that is missing, unknown or of another shape.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut state = self.state.borrow_mut();
        let (loaded, mut problems) = (mem::take(&mut state.loaded), mem::take(&mut state.problems));
        let unknown = state.found.iter().filter(|(name, _)| !loaded.contains(*name));
        problems.extend(unknown.map(|(name, found)| format!("`{name}` {:?} is unknown", found.shape)));
        if problems.is_empty() { Ok(()) } else { Err(Error::Weights { part: self.part.clone(), problems }) }
    }

    fn load(&self, found: &Found) -> Tensor {
        let file = &self.files[found.file];
        let kind = match found.dtype {
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            _ => Kind::Float,
        };
        let tensor = Tensor::from_data_size(&file[found.range.clone()], &found.shape, kind);
        let tensor = tensor.to_device(self.placement.device).to_kind(self.kind);
        file.done_with(found.range.clone());
        tensor
    }
}

/// A node in the tree of names, such as `down_blocks.0.resnets`.
#[derive(Clone)]
pub(crate) struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl Scope<'_> {
    /// One level down.
    pub(crate) fn at(&self, name: impl Display) -> Self {
        let dot = if self.prefix.is_empty() { "" } else { "." };
        Self { weights: self.weights, prefix: format!("{}{dot}{name}", self.prefix) }
    }

    /// The first of several names that exists; the first of all where none does.
    pub(crate) fn either(&self, names: &[&str]) -> Self {
        let existing = names.iter().find(|name| self.weights.has(&format!("{}.", self.at(name).prefix)));
        self.at(existing.unwrap_or(&names[0]))
    }

    /// Whether feature maps are channels-last.
    pub(crate) fn channels_last(&self) -> bool {
        self.weights.placement.channels_last
    }

    /// The tensor `name` of this shape.
    pub(crate) fn tensor(&self, name: &str, shape: &[i64]) -> Tensor {
        self.tensor_of(name, &[shape])
    }

    /// The tensor `name` of one of these shapes, viewed as the first of them. All have the same number of elements.
    pub(crate) fn tensor_of(&self, name: &str, shapes: &[&[i64]]) -> Tensor {
        let name = self.at(name).prefix;
        let mut state = self.weights.state.borrow_mut();
        let State { found, loaded, problems } = &mut *state;
        let problem = match found.get(&name) {
            _ if loaded.contains(&name) => format!("`{name}` is used twice"),
            None => format!("`{name}` {:?} is missing", shapes[0]),
            Some(found) if !shapes.contains(&found.shape.as_slice()) => {
                format!("`{name}` has the shape {:?}, not {:?}", found.shape, shapes[0])
            }
            Some(found) if !matches!(found.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64) => {
                format!("`{name}` has the dtype {:?}, not F32, F16 or BF16", found.dtype)
            }
            Some(found) => {
                loaded.insert(name);
                return self.weights.load(found).view(shapes[0]);
            }
        };
        problems.push(problem);
        // A placeholder without memory of its own: `finish` reports the problem before anything is computed with it.
        Tensor::zeros([1], (self.weights.kind, Device::Cpu)).expand(shapes[0], false)
    }
}

fn tensors(metadata: &Metadata, file: usize, data: usize) -> Vec<(String, Found)> {
    let found = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let shape = info.shape.iter().map(|&n| n as i64).collect();
        let range = data + info.data_offsets.0..data + info.data_offsets.1;
        (name, Found { file, dtype: info.dtype, shape, range })
    };
    metadata.tensors().into_iter().map(found).collect()
}

/// The distinct file names of an index. All must be names of files in its folder.
fn shards(bytes: &[u8], index: &str) -> Result<BTreeSet<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let wrong = |problem: String| Error::Config { file: index.to_owned(), problems: vec![problem] };
    let index: Index = serde_json::from_slice(bytes).map_err(|e| wrong(format!("not an index of shards: {e}")))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    match shards.iter().find(|shard| shard.contains(['/', '\\'])) {
        Some(outside) => Err(wrong(format!("`{outside}` is not the name of a file in the same folder"))),
        None => Ok(shards),
    }
}
