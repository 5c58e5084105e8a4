//! What people give as a model: besides the name of a fetched one, a folder, a file, a folder of the hub's cache, and
//! what cannot be taken, with the words for it.

use std::fs;
use std::path::{Path, PathBuf};

/// Ends of files of PyTorch, which can run code when they are read.
const PICKLES: [&str; 5] = ["ckpt", "pt", "pth", "bin", "pkl"];

/// Ends of files that hold others.
const ARCHIVES: [&str; 9] = ["zip", "tar", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar"];

/// The folder or file that a worker can load for what was given.
///
/// # Errors
/// Why there is none, and what to do: the rest of a sentence about it.
pub(crate) fn path(model: &str) -> Result<PathBuf, String> {
    let path = Path::new(model);
    let end = path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    if path.is_dir() {
        if let Some(inside) = in_cache(path) {
            return Err(format!("it is the cache of a hub; name a model in it, such as `{}`", inside.display()));
        }
        return Ok(snapshot(path)?.unwrap_or_else(|| path.to_owned()));
    }
    if PICKLES.contains(&end.as_str()) {
        return Err(
            "it is a pickle of PyTorch, which can run code and is not read: give the checkpoint as `.safetensors`, or save \
             the model as a folder with `pipe.save_pretrained(FOLDER, safe_serialization=True)` of diffusers"
                .to_owned(),
        );
    }
    if ARCHIVES.contains(&end.as_str()) {
        return Err("it is an archive; unpack it, and name the folder or the `.safetensors` file inside".to_owned());
    }
    if let Ok(to) = fs::read_link(path)
        && !path.exists()
    {
        return Err(format!("it is a link to `{}`, which is not there", to.display()));
    }
    if end == "gguf" {
        return Err("it is a GGUF file; give the checkpoint as `.safetensors`".to_owned());
    }
    if path.is_file() {
        return match path.file_name().and_then(|name| name.to_str()) {
            Some("model_index.json") => Err("it is a file of a model; name the folder that it is in".to_owned()),
            _ => Ok(path.to_owned()),
        };
    }
    if end == "safetensors" {
        return Err("there is no such file".to_owned());
    }
    Err(match repository(model) {
        Some(repository) => {
            let name = repository.rsplit('/').next().unwrap_or(&repository);
            format!(
                "there is no such folder; if it is a repository of the hub, `syncdiffusion weights fetch {name} --from \
                 {repository}` fetches it, and `--model {name}` then names it"
            )
        }
        None => "there is no such folder; give a folder in the layout of diffusers, a checkpoint in one `.safetensors` file, \
                 `demo`, or `sd2` after `syncdiffusion weights fetch sd2`"
            .to_owned(),
    })
}

/// Whether a name is that of a file, by its end.
pub(crate) fn names_a_file(model: &str) -> bool {
    let end = Path::new(model).extension().map(|end| end.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let end = end.as_str();
    PICKLES.contains(&end) || ARCHIVES.contains(&end) || matches!(end, "safetensors" | "gguf")
}

/// A model in the cache of a hub, which has a folder `models--OWNER--NAME` for each.
fn in_cache(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let is_model = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("models--") && path.join("snapshots").is_dir()
    };
    entries.filter(is_model).min()
}

/// The state of a model in a folder of the hub's cache (`models--OWNER--NAME`): what `refs/main` names, or the only
/// one.
fn snapshot(folder: &Path) -> Result<Option<PathBuf>, String> {
    let snapshots = folder.join("snapshots");
    if !snapshots.is_dir() || folder.join("unet").is_dir() {
        return Ok(None);
    }
    let main = fs::read_to_string(folder.join("refs/main")).unwrap_or_default();
    let main = snapshots.join(main.trim());
    if main != snapshots && main.is_dir() {
        return Ok(Some(main));
    }
    let entries = fs::read_dir(&snapshots).map_err(|error| format!("`{}`: {error}", snapshots.display()))?;
    let mut states: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    states.sort();
    match states.len() {
        0 => Err(format!("it is a folder of the hub's cache without a model in `{}`", snapshots.display())),
        1 => Ok(states.pop()),
        n => Err(format!(
            "it is a folder of the hub's cache with {n} states; name one, such as `{}`",
            states[0].display()
        )),
    }
}

/// The repository that a text may be: `OWNER/NAME`, or the URL of its page.
fn repository(text: &str) -> Option<String> {
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => text,
    };
    let mut parts = path.trim_end_matches('/').split('/');
    let (owner, name) = (parts.next()?, parts.next()?);
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    (plain(owner) && plain(name) && (parts.next().is_none() || text.contains("://"))).then(|| format!("{owner}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_loaded_is_explained() {
        for (model, says) in [
            ("v2-1_768-ema-pruned.ckpt", "pickle"),
            ("model.safetensors", "no such file"),
            (
                "stabilityai/stable-diffusion-2-1",
                "weights fetch stable-diffusion-2-1 --from stabilityai/stable-diffusion-2-1",
            ),
            ("https://huggingface.co/a/b/tree/main", "weights fetch b --from a/b"),
            ("./no/folder", "no such folder; give a folder"),
            ("/no/folder", "no such folder; give a folder"),
            ("model.gguf", "GGUF"),
            ("stable-diffusion-2.zip", "archive"),
            ("models/sd2.tar.gz", "archive"),
        ] {
            let why = path(model).unwrap_err();
            assert!(why.contains(says), "{model}: {why}");
        }
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("gone", &link).unwrap();
        assert!(path(link.to_str().unwrap()).unwrap_err().contains("link to `gone`"));
    }

    #[test]
    fn a_folder_of_the_cache_leads_to_the_model() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("models--a--b");
        let state = |hash: &str| {
            let state = cache.join("snapshots").join(hash);
            fs::create_dir_all(&state).unwrap();
            state
        };
        let one = state("1111");
        let given = cache.to_str().unwrap();
        assert_eq!(path(given), Ok(one));
        let two = state("2222");
        assert!(path(given).unwrap_err().contains("2 states"));
        fs::create_dir_all(cache.join("refs")).unwrap();
        fs::write(cache.join("refs/main"), "2222\n").unwrap();
        assert_eq!(path(given), Ok(two));
        let why = path(dir.path().to_str().unwrap()).unwrap_err();
        assert!(why.contains("cache of a hub") && why.contains("models--a--b"), "{why}");
    }
}
