//! Whether a folder has the parts of a model, without reading its tensors.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value};

use crate::disk;
use crate::layout::{LOCK, REQUIRED, WEIGHTS};
use crate::lock::Lock;

/// The longest header of a file of weights that is read, as in the format's own reader.
const MAX_HEADER: u64 = 100 << 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Bytes of weights.
    pub bytes: u64,
    /// All that is missing, truncated or malformed; empty if the model can probably be loaded.
    pub problems: Vec<String>,
}

/// Looks for the configurations and the weights of a model in a folder in the layout of diffusers, reads the headers of
/// the weights and compares sizes with the lock, if there is one. [`verify`](crate::verify) compares every byte.
pub fn inspect(dir: &Path) -> Inspection {
    let mut found = Inspection::default();
    for path in REQUIRED.into_iter().chain(["perceptual/config.json"]) {
        match std::fs::read(dir.join(path)) {
            Err(error) => found.problems.push(format!("`{path}`: {error}")),
            Ok(text) if Path::new(path).extension().is_some_and(|is| is == "json") => {
                if let Err(error) = serde_json::from_slice::<Value>(&text) {
                    found.problems.push(format!("`{path}` is not JSON: {error}"));
                }
            }
            Ok(_) => {}
        }
    }
    for (part, stem) in WEIGHTS.into_iter().chain([("perceptual", "model")]) {
        match files(dir, part, stem) {
            Err(problem) => found.problems.push(problem),
            Ok(files) => {
                for path in files {
                    found.bytes += disk::size(&dir.join(&path));
                    if let Err(problem) = header(&dir.join(&path)) {
                        found.problems.push(format!("`{path}` {problem}"));
                    }
                }
            }
        }
    }
    if dir.join(LOCK).is_file() {
        match Lock::read(dir) {
            Err(error) => found.problems.push(error.to_string()),
            Ok(lock) => found.problems.extend(lock.files.iter().filter_map(|entry| {
                let size = disk::size(&dir.join(&entry.path));
                (size != entry.size).then(|| format!("`{}` has {size} bytes, not {}", entry.path, entry.size))
            })),
        }
    }
    found
}

/// The files of a part's weights: one, or the shards that an index names. Full weights go before those of half the
/// size.
fn files(dir: &Path, part: &str, stem: &str) -> Result<Vec<String>, String> {
    for variant in ["", ".fp16"] {
        let whole = format!("{part}/{stem}{variant}.safetensors");
        if dir.join(&whole).is_file() {
            return Ok(vec![whole]);
        }
        for index in [
            format!("{part}/{stem}.safetensors.index{variant}.json"),
            format!("{part}/{stem}{variant}.safetensors.index.json"),
        ] {
            if dir.join(&index).is_file() {
                return shards(dir, part, &index).ok_or_else(|| format!("`{index}` names no files"));
            }
        }
    }
    Err(format!("`{part}/{stem}.safetensors` is missing"))
}

/// The files that an index names.
fn shards(dir: &Path, part: &str, index: &str) -> Option<Vec<String>> {
    let index: Value = serde_json::from_slice(&std::fs::read(dir.join(index)).ok()?).ok()?;
    let names: BTreeSet<&str> = index["weight_map"].as_object()?.values().filter_map(Value::as_str).collect();
    (!names.is_empty()).then(|| names.into_iter().map(|name| format!("{part}/{name}")).collect())
}

/// The header of a file of weights.
struct Header {
    tensors: Map<String, Value>,
    /// Where the tensors begin.
    begin: u64,
    /// Bytes of the file.
    all: u64,
}

impl Header {
    /// Reads it; `None` if the file is in another format.
    fn read(path: &Path) -> std::io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let all = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER.min(all) {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.take(length).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text).ok().map(|tensors| Self { tensors, begin: length + 8, all }))
    }

    /// Where the last tensor ends; `None` if that cannot be understood.
    fn end(&self) -> Option<u64> {
        let mut tensors = self.tensors.iter().filter(|(name, _)| *name != "__metadata__");
        let last = tensors.try_fold(0, |last, (_, of)| Some(of["data_offsets"][1].as_u64()?.max(last)))?;
        Some(self.begin.saturating_add(last))
    }
}

/// Whether a file is as long as its header says.
fn header(path: &Path) -> Result<(), String> {
    match Header::read(path) {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(None) => Err("is not in the format of safetensors".to_owned()),
        Ok(Some(header)) => match header.end() {
            None => Err("has a header that cannot be understood".to_owned()),
            Some(end) if end > header.all => Err(format!("is truncated: it has {} bytes of {end}", header.all)),
            Some(_) => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with empty weights.
    fn model() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, bytes: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        for path in REQUIRED.into_iter().chain(["perceptual/config.json"]) {
            put(path, b"{}");
        }
        let head = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let weights = [&(head.len() as u64).to_le_bytes()[..], head, &[0; 4]].concat();
        put("unet/diffusion_pytorch_model.safetensors.index.json", br#"{"weight_map":{"a":"x.safetensors"}}"#);
        for path in ["unet/x", "vae/diffusion_pytorch_model.fp16", "text_encoder/model", "perceptual/model"] {
            put(&format!("{path}.safetensors"), &weights);
        }
        dir
    }

    #[test]
    fn a_model_that_is_there_has_no_problems() {
        let found = inspect(model().path());
        assert_eq!((found.problems, found.bytes), (Vec::new(), 4 * (8 + 54 + 4)));
    }

    #[test]
    fn every_problem_is_listed() {
        let dir = model();
        let path = |name: &str| dir.path().join(name);
        fs::remove_file(path("vae/config.json")).unwrap();
        fs::write(path("scheduler/scheduler_config.json"), "{").unwrap();
        fs::remove_file(path("text_encoder/model.safetensors")).unwrap();
        fs::write(path("vae/diffusion_pytorch_model.fp16.safetensors"), "not tensors").unwrap();
        let whole = fs::read(path("unet/x.safetensors")).unwrap();
        fs::write(path("unet/x.safetensors"), &whole[..whole.len() - 1]).unwrap();
        let problems = inspect(dir.path()).problems;
        for (problem, begin) in problems.iter().zip([
            "`vae/config.json`: No such file",
            "`scheduler/scheduler_config.json` is not JSON",
            "`unet/x.safetensors` is truncated: it has 65 bytes of 66",
            "`vae/diffusion_pytorch_model.fp16.safetensors` is not in the format of safetensors",
            "`text_encoder/model.safetensors` is missing",
        ]) {
            assert!(problem.starts_with(begin), "{problem}");
        }
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}
