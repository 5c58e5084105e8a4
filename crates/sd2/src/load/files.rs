//! Which files of a folder hold the weights of a part, where several lie side by side.
//!
//! Names are those of diffusers and transformers: `STEM.safetensors`, `STEM.VARIANT.safetensors`, and for weights in
//! shards an index, `STEM.safetensors.index.json`, `STEM.safetensors.index.VARIANT.json` or
//! `STEM.VARIANT.safetensors.index.json`. Files without a variant count before all others, as they do there; then
//! `fp16`, then the only other variant there is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::bundle::Bundle;
use super::error::{Error, Result};
use super::problem;

/// The paths of the files that hold the weights of a part.
///
/// # Errors
/// If the part has no weights; the message lists what it has instead.
pub(crate) fn of_part(bundle: &Bundle, part: &str, stem: &str) -> Result<Vec<String>> {
    let names = bundle.names(part)?;
    let has = |name: &str| names.contains(name);
    let others: BTreeSet<&str> =
        names.iter().filter_map(|name| variant(name, stem)).filter(|name| *name != "fp16").collect();
    let mut variants = vec!["", "fp16"];
    if let [only] = others.iter().copied().collect::<Vec<_>>()[..] {
        variants.push(only);
    }
    for variant in variants {
        let dotted = if variant.is_empty() { String::new() } else { format!(".{variant}") };
        let whole = format!("{stem}{dotted}.safetensors");
        let index =
            [format!("{stem}.safetensors.index{dotted}.json"), format!("{stem}{dotted}.safetensors.index.json")]
                .into_iter()
                .find(|index| has(index));
        // Where both are, diffusers takes the shards and transformers the whole.
        let whole_first = stem == "model";
        match index {
            Some(index) if !(has(&whole) && whole_first) => return shards(bundle, part, &index, &names),
            _ if has(&whole) => return Ok(vec![format!("{part}/{whole}")]),
            _ => {}
        }
    }
    Err(missing(part, stem, &names, &others))
}

/// The variant that a file of weights, or an index of them, has in its name.
fn variant<'a>(name: &'a str, stem: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(stem)?;
    let variant = rest
        .strip_prefix(".safetensors.index.")
        .and_then(|rest| rest.strip_suffix(".json"))
        .or_else(|| rest.strip_prefix('.')?.strip_suffix(".safetensors.index.json"))
        .or_else(|| rest.strip_prefix('.')?.strip_suffix(".safetensors"))?;
    (!variant.is_empty() && !variant.contains("-of-")).then_some(variant)
}

/// The files that an index names, which may only be names of files beside it.
fn shards(bundle: &Bundle, part: &str, index: &str, names: &BTreeSet<String>) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = format!("{part}/{index}");
    let Index { weight_map } = problem::json(&path, &bundle.read(&path)?)?;
    let shards: BTreeSet<String> = weight_map.into_values().collect();
    let wrong = |problem: String| Err(Error::File { file: path.clone(), problem });
    if let Some(outside) = shards.iter().find(|shard| shard.contains(['/', '\\'])) {
        return wrong(format!("names `{outside}`, which is not a file beside it"));
    }
    let gone: Vec<&String> = shards.iter().filter(|shard| !names.contains(*shard)).collect();
    match gone[..] {
        [] if shards.is_empty() => wrong("names no files; fetch the model again".to_owned()),
        [] => Ok(shards.into_iter().map(|shard| format!("{part}/{shard}")).collect()),
        [first, ..] => wrong(format!(
            "names {} files, of which {} are not there, such as `{first}`; fetch the model again",
            shards.len(),
            gone.len()
        )),
    }
}

/// What to say where no weights are found.
fn missing(part: &str, stem: &str, names: &BTreeSet<String>, variants: &BTreeSet<&str>) -> Error {
    let plain = format!("{part}/{stem}.safetensors");
    let pickles = [".bin", ".ckpt", ".pt", ".pth"];
    let pickle = names.iter().find(|name| pickles.iter().any(|end| name.ends_with(end)));
    let listed = |names: Vec<String>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if variants.len() > 1 {
        let files = listed(variants.iter().map(|variant| format!("{stem}.{variant}.safetensors")).collect());
        let problem = format!("is missing, and there are {files}; give one of them the plain name");
        return Error::File { file: plain, problem };
    }
    if let Some(pickle) = pickle {
        return Error::File {
            file: format!("{part}/{pickle}"),
            problem: format!("is a pickle of PyTorch; {}", problem::PICKLE),
        };
    }
    let tensors: Vec<String> = names.iter().filter(|name| name.ends_with(".safetensors")).cloned().collect();
    if !tensors.is_empty() {
        let problem = format!(
            "is missing; there {} {} under a name that no loader looks for, or without its index",
            if tensors.len() == 1 { "is" } else { "are" },
            listed(tensors.into_iter().take(3).collect())
        );
        return Error::File { file: plain, problem };
    }
    Error::Missing {
        wanted: format!("{plain}` or `{part}/{stem}.fp16.safetensors` or an index of shards `{plain}.index.json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_read_from_names() {
        for (name, expected) in [
            ("model.fp16.safetensors", Some("fp16")),
            ("model.safetensors.index.fp16.json", Some("fp16")),
            ("model.non_ema.safetensors.index.json", Some("non_ema")),
            ("model.safetensors", None),
            ("model.safetensors.index.json", None),
            ("model-00001-of-00002.safetensors", None),
            ("model.fp16-00001-of-00002.safetensors", None),
            ("other.fp16.safetensors", None),
        ] {
            assert_eq!(variant(name, "model"), expected, "{name}");
        }
    }
}
