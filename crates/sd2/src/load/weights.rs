//! Weights from safetensors files, loaded directly to their device and dtype.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::mem;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use super::bundle::Bundle;
use super::bytes::Bytes;
use super::error::{Error, Result};
use super::header::{Named, tensors};
use super::lora::Lora;
use super::{files, misfit, problem};
use crate::placement::{Placement, Upsampling};

/// All tensors of one part of a bundle. Problems are collected and reported by [`Self::finish`], all at once. After it
/// all tensors can be loaded again.
pub(crate) struct Weights {
    part: String,
    placement: Placement,
    kind: Kind,
    /// What the files are called.
    paths: Vec<String>,
    files: Vec<Bytes>,
    loras: Vec<Arc<Lora>>,
    headers_only: bool,
    damaged: Arc<Mutex<BTreeSet<String>>>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The tensors of the files, without those that are ignored.
    found: BTreeMap<String, Found>,
    /// The names of those that were loaded.
    loaded: BTreeSet<String>,
    problems: Vec<String>,
    /// Whether all were read once.
    complete: bool,
}

struct Found {
    file: usize,
    dtype: Dtype,
    shape: Vec<i64>,
    /// Where its bytes lie in the file.
    range: Range<usize>,
}

impl Weights {
    /// Opens the files that hold the weights of a part; see [`files`].
    pub(crate) fn open(bundle: &Bundle, part: &str, stem: &str, placement: Placement, kind: Kind) -> Result<Self> {
        let mut weights = Self {
            part: part.to_owned(),
            placement,
            kind,
            paths: Vec::new(),
            files: Vec::new(),
            loras: bundle.loras().to_vec(),
            headers_only: bundle.is_headers_only(),
            damaged: Arc::clone(bundle.damaged()),
            state: RefCell::new(State::default()),
        };
        match bundle.single().filter(|_| part != "perceptual") {
            Some(single) => {
                let (file, tensors) = single.part(part)?;
                weights.add(file, single.path().display().to_string(), tensors);
            }
            None => {
                for path in files::of_part(bundle, part, stem)? {
                    let file = bundle.read(&path)?;
                    let (header, metadata) =
                        SafeTensors::read_metadata(&file).map_err(|_| problem::weights(&path, &file))?;
                    // An 8-byte length stands before the header.
                    let tensors = tensors(&metadata, 8 + header);
                    weights.add(file, path, tensors);
                }
            }
        }
        Ok(weights)
    }

    fn add(&mut self, file: Bytes, path: String, tensors: Vec<Named>) {
        let state = self.state.get_mut();
        for Named { name, dtype, shape, range } in tensors {
            let found = Found { file: self.files.len(), dtype, shape, range };
            if state.found.insert(name.clone(), found).is_some() {
                state.problems.push(format!("`{name}` is in more than one file"));
            }
        }
        self.files.push(file);
        self.paths.push(path);
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
        if problems.is_empty() {
            state.complete = true;
            return Ok(());
        }
        for (file, path) in self.paths.iter().enumerate() {
            let inside = state.found.iter().filter(|(_, found)| found.file == file);
            let seen = inside.map(|(name, found)| misfit::Seen { name, dtype: found.dtype });
            if let Some(error) = misfit::explain(path, &seen) {
                return Err(error);
            }
        }
        Err(Error::Weights { part: self.part.clone(), problems })
    }

    /// The tensor `name` on the device, with what the LoRAs change of it.
    fn load(&self, name: &str, found: &Found, check: bool) -> std::result::Result<Tensor, String> {
        if self.headers_only && !self.loras.iter().any(|lora| lora.layer_of(&self.part, name).is_some()) {
            return Ok(Tensor::zeros([1], (self.kind, Device::Cpu)).expand(&found.shape, false));
        }
        let file = &self.files[found.file];
        let kind = match found.dtype {
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            _ => Kind::Float,
        };
        let mut tensor =
            Tensor::from_data_size(&file[found.range.clone()], &found.shape, kind).to_device(self.placement.device);
        file.done_with(found.range.clone());
        for lora in &self.loras {
            if let Some(layer) = lora.layer_of(&self.part, name) {
                tensor = lora.change(layer, &tensor.to_kind(Kind::Float))?;
            }
        }
        let original = tensor;
        let tensor = original.to_kind(self.kind);
        // A sum is finite only if all of it is, and takes a moment. What only this dtype cannot hold does not count as
        // damage.
        if check
            && !tensor.sum(Kind::Float).double_value(&[]).is_finite()
            && original.isfinite().all().int64_value(&[]) == 0
        {
            Bundle::note_damage(&self.damaged, format!("`{name}` of `{}`", self.part));
        }
        Ok(tensor)
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

    /// How maps are upsampled.
    pub(crate) fn upsampling(&self) -> Upsampling {
        self.weights.placement.upsampling
    }

    /// The tensor `name` of this shape.
    pub(crate) fn tensor(&self, name: &str, shape: &[i64]) -> Tensor {
        self.tensor_of(name, &[shape])
    }

    /// The tensor `name` of one of these shapes, viewed as the first of them. All have the same number of elements.
    pub(crate) fn tensor_of(&self, name: &str, shapes: &[&[i64]]) -> Tensor {
        let name = self.at(name).prefix;
        let mut state = self.weights.state.borrow_mut();
        let State { found, loaded, problems, complete } = &mut *state;
        let problem = match found.get(&name) {
            _ if loaded.contains(&name) => format!("`{name}` is used twice"),
            None => format!("`{name}` {:?} is missing", shapes[0]),
            Some(found) if !shapes.contains(&found.shape.as_slice()) => {
                format!("`{name}` has the shape {:?}, not {:?}", found.shape, shapes[0])
            }
            Some(found) if !misfit::readable(found.dtype) => {
                format!("`{name}` has the dtype {:?}, not F32, F16 or BF16", found.dtype)
            }
            Some(found) => match self.weights.load(&name, found, !*complete) {
                Ok(tensor) => {
                    loaded.insert(name);
                    return tensor.view(shapes[0]);
                }
                Err(problem) => problem,
            },
        };
        problems.push(problem);
        // A placeholder without memory of its own: `finish` reports the problem before anything is computed with it.
        Tensor::zeros([1], (self.weights.kind, Device::Cpu)).expand(shapes[0], false)
    }
}
