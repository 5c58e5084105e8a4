//! What a model that lacks a file is instead, as far as that can be seen.

use std::path::Path;

use serde_json::Value;

use super::error::Error;
use super::problem;

/// Pipelines of other families, by what the name of their class contains.
const FAMILIES: [(&str, &str); 12] = [
    ("XL", "Stable Diffusion XL"),
    ("Diffusion3", "Stable Diffusion 3"),
    ("Flux", "FLUX"),
    ("PixArt", "PixArt"),
    ("Kandinsky", "Kandinsky"),
    ("Sana", "Sana"),
    ("Wuerstchen", "Würstchen"),
    ("Cascade", "Stable Cascade"),
    ("Hunyuan", "Hunyuan"),
    ("Qwen", "Qwen-Image"),
    ("Wan", "Wan"),
    ("DeepFloyd", "DeepFloyd IF"),
];

/// Why `path` is not in a folder, or in a single file, in the words that help most.
pub(crate) fn explain(folder: Option<&Path>, single: Option<&Path>, path: &str) -> Error {
    let part = path.split('/').next().unwrap_or(path);
    if part == "perceptual" {
        let place = folder.or(single).map_or_else(String::new, |place| format!(" {}", place.display()));
        return Error::Foreign(format!(
            "it has no `perceptual/`, the network of LPIPS, which no folder of diffusers has; `syncdiffusion weights \
             perceptual{place}` adds it"
        ));
    }
    let why = folder.and_then(|folder| family(folder).or_else(|| elsewhere(folder)));
    why.map_or_else(|| Error::Missing { wanted: path.to_owned() }, Error::Foreign)
}

/// The family of a model whose `model_index.json` names another one.
pub(crate) fn family(folder: &Path) -> Option<String> {
    let bytes = std::fs::read(folder.join("model_index.json")).ok()?;
    let index: Value = problem::json("model_index.json", &bytes).ok()?;
    let class = index["_class_name"].as_str()?;
    let kind = match FAMILIES.iter().find(|(part, _)| class.contains(part)) {
        Some((_, name)) => format!("is {name}"),
        None if index["transformer"].is_array() && !index["unet"].is_array() => "draws with a transformer".to_owned(),
        None => return None,
    };
    Some(format!("`model_index.json` names `{class}`, which {kind}; {}", problem::FAMILIES))
}

/// Where the model is, if it is beside or inside what was named.
fn elsewhere(folder: &Path) -> Option<String> {
    let shown = |path: &Path| path.display().to_string();
    if folder.join("unet/config.json").exists() {
        return None;
    }
    if folder.join("config.json").exists()
        && folder.parent().is_some_and(|parent| parent.join("model_index.json").exists())
    {
        return Some(format!("`{}` is a part of a model; name the folder that it is in", shown(folder)));
    }
    let mut entries: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    if let Some(inside) =
        entries.iter().find(|path| path.join("model_index.json").exists() || path.join("unet").is_dir())
    {
        return Some(format!("`{}` holds the model in `{}`; name that folder", shown(folder), shown(inside)));
    }
    let ends = |path: &&std::path::PathBuf, ends: &[&str]| {
        path.extension().is_some_and(|end| ends.iter().any(|wanted| end.eq_ignore_ascii_case(wanted)))
    };
    if let Some(file) = entries.iter().find(|path| ends(path, &["safetensors"])) {
        let file = shown(file);
        return Some(format!(
            "`{}` has no `unet/`; if `{file}` is the model in one file, name that file",
            shown(folder)
        ));
    }
    if let Some(pickle) = entries.iter().find(|path| ends(path, &["ckpt", "pt", "pth", "bin"])) {
        return Some(format!("`{}` is a pickle of PyTorch; {}", shown(pickle), problem::PICKLE));
    }
    if let Some(file) = entries.iter().find(|path| ends(path, &["gguf"])) {
        return Some(format!("`{}` is a GGUF file; only safetensors are read", shown(file)));
    }
    entries.is_empty().then(|| format!("`{}` is an empty folder", shown(folder)))
}
