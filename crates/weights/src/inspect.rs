//! Whether a model is as its lock says, and how large its weights are, without reading them.
//!
//! Whether it can be loaded is for the worker to say: it reads the files.

use std::fs;
use std::path::Path;

use crate::disk;
use crate::layout::LOCK;
use crate::lock::Lock;

/// The folders with weights.
const PARTS: [&str; 4] = ["unet", "vae", "text_encoder", "perceptual"];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Bytes of weights, of all variants that there are.
    pub bytes: u64,
    /// Files that have not the size that the lock says, if there is a lock.
    pub problems: Vec<String>,
}

/// Looks at the sizes of the files of a model: a folder, or a checkpoint in one file. Whether the bytes are right is
/// for [`verify`](crate::verify).
pub fn inspect(model: &Path) -> Inspection {
    let mut found = Inspection { bytes: disk::size(model), ..Inspection::default() };
    for entry in PARTS.iter().filter_map(|part| fs::read_dir(model.join(part)).ok()).flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "safetensors") {
            found.bytes += disk::size(&path);
        }
    }
    if model.join(LOCK).is_file() {
        match Lock::read(model) {
            Err(error) => found.problems.push(error.to_string()),
            Ok(lock) => found.problems.extend(lock.files.iter().filter_map(|entry| {
                let size = disk::size(&model.join(&entry.path));
                (size != entry.size).then(|| format!("`{}` has {size} bytes, not {}", entry.path, entry.size))
            })),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_compared_with_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("unet")).unwrap();
        fs::write(dir.path().join("unet/x.safetensors"), [0; 7]).unwrap();
        assert_eq!(inspect(dir.path()), Inspection { bytes: 7, problems: Vec::new() });
        assert_eq!(inspect(&dir.path().join("unet/x.safetensors")).bytes, 7);
        let entry = r#"{"path":"unet/x.safetensors","size":8,"sha256":""}"#;
        let lock = format!(r#"{{"version":1,"endpoint":"","repo":"a/b","revision":"","commit":"","files":[{entry}]}}"#);
        fs::write(dir.path().join(LOCK), lock).unwrap();
        assert_eq!(inspect(dir.path()).problems, ["`unet/x.safetensors` has 7 bytes, not 8"]);
    }
}
