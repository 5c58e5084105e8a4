//! Which files of a repository make a bundle.

use std::collections::BTreeMap;

use url::Url;

use crate::error::{At, Error, Result};
use crate::hash::Hash;
use crate::layout::{OPTIONAL, REQUIRED, TOKENIZER, WEIGHTS};
use crate::listing::{Listed, Listing};
use crate::lock::Origin;

/// Which of the weights are fetched. In the bundle all have the plain name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// Those without a variant, most often in fp32.
    #[default]
    Full,
    /// Those in fp16: half the bytes.
    Fp16,
}

/// A file that is to be fetched.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Where it goes, relative to the bundle, with `/`.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) endpoint: Url,
    pub(crate) origin: Origin,
}

impl File {
    /// A file of a listing.
    pub(crate) fn of(listing: &Listing, remote: &str, listed: &Listed, path: String) -> Self {
        let origin = Origin {
            repo: listing.source.repo.clone(),
            commit: listing.commit.clone(),
            path: remote.to_owned(),
            hash: listed.hash.clone(),
        };
        Self { path, size: listed.size, endpoint: listing.endpoint.clone(), origin }
    }

    /// For errors about it, at a host.
    pub(crate) fn at(&self, host: String) -> At {
        At { repo: self.origin.repo.clone(), file: self.origin.path.clone(), host }
    }

    /// The host that it is asked of.
    pub(crate) fn host(&self) -> String {
        host(&self.endpoint)
    }

    /// The error for a content that is not the one listed.
    pub(crate) fn mismatch(&self, found: Hash) -> Error {
        Error::Mismatch { at: self.at(self.host()).into(), expected: self.origin.hash.clone(), found }
    }
}

/// The host of a URL, with its port if that is not the usual one.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Chooses the files of a model.
pub(crate) fn plan(listing: &Listing, variant: Variant) -> Result<Vec<File>> {
    let files = &listing.files;
    let mut chosen = Vec::new();
    let mut problems = Vec::new();
    for path in REQUIRED {
        match files.get(path) {
            Some(listed) => chosen.push(File::of(listing, path, listed, path.to_owned())),
            None => problems.push(format!("it has no `{path}`; the layout of diffusers is needed")),
        }
    }
    if !files.contains_key(TOKENIZER[0]) && !TOKENIZER[1..].iter().all(|path| files.contains_key(*path)) {
        let [whole, vocabulary, merges] = TOKENIZER;
        problems.push(format!("it has neither `{whole}` nor `{vocabulary}` and `{merges}`"));
    }
    let optional = TOKENIZER.iter().chain(&OPTIONAL).filter_map(|&path| Some((path, files.get(path)?)));
    chosen.extend(optional.map(|(path, listed)| File::of(listing, path, listed, path.to_owned())));
    for (part, stem) in WEIGHTS {
        let plain = format!("{part}/{stem}.safetensors");
        let wanted = match variant {
            Variant::Full => plain.clone(),
            Variant::Fp16 => format!("{part}/{stem}.fp16.safetensors"),
        };
        let shards = shards(files, part, stem, variant);
        // Where both are, diffusers takes the shards and transformers the whole, and so does whoever loads them.
        let whole = stem == "model" && files.contains_key(&wanted);
        if !whole && !shards.is_empty() {
            chosen.extend(shards.into_iter().map(|(path, listed)| File::of(listing, path, listed, path.to_owned())));
        } else if let Some(listed) = files.get(&wanted) {
            chosen.push(File::of(listing, &wanted, listed, plain));
        } else {
            let other =
                |end: &str| files.keys().any(|path| path.starts_with(&format!("{part}/")) && path.ends_with(end));
            let why = match variant {
                Variant::Fp16 if files.contains_key(&plain) => "; leave out `--variant fp16`",
                Variant::Full if files.contains_key(&format!("{part}/{stem}.fp16.safetensors")) => {
                    "; `--variant fp16` fetches the one that it has"
                }
                _ if other(".bin") || other(".ckpt") || other(".pt") => {
                    ", only weights in another format; only `.safetensors` are fetched, because the others can run \
                     code; try another `--from`"
                }
                _ => "; try another `--from`",
            };
            problems.push(format!("it has no `{wanted}`{why}"));
        }
    }
    if problems.is_empty() { Ok(chosen) } else { Err(Error::Unfit { repo: listing.source.repo.clone(), problems }) }
}

/// The file of VGG16, under another name.
pub(crate) fn perceptual(listing: &Listing, path: String) -> Result<File> {
    let remote = "model.safetensors";
    let problem = || vec![format!("it has no `{remote}`; try another `--perceptual-from`")];
    let listed = listing.files.get(remote);
    let listed = listed.ok_or_else(|| Error::Unfit { repo: listing.source.repo.clone(), problems: problem() })?;
    Ok(File::of(listing, remote, listed, path))
}

/// The index and the shards of weights that are in several files; nothing where there is no index.
fn shards<'a>(
    files: &'a BTreeMap<String, Listed>,
    part: &str,
    stem: &str,
    variant: Variant,
) -> Vec<(&'a str, &'a Listed)> {
    let dotted = match variant {
        Variant::Full => "",
        Variant::Fp16 => ".fp16",
    };
    // The first is how today's diffusers and transformers call it, the second how older ones did.
    let indices = [
        format!("{part}/{stem}.safetensors.index{dotted}.json"),
        format!("{part}/{stem}{dotted}.safetensors.index.json"),
    ];
    let Some(index) = indices.into_iter().find(|index| files.contains_key(index)) else { return Vec::new() };
    let begins = [format!("{part}/{stem}{dotted}-"), format!("{part}/{stem}-")];
    let shard = |path: &str| {
        let begin = begins.iter().find_map(|begin| path.strip_prefix(begin.as_str()));
        let number = begin.and_then(|rest| rest.strip_suffix(".safetensors"));
        // `model-00001-of-00002.fp16.safetensors` is how the oldest call the shards of a variant.
        let number = number.and_then(|number| number.strip_suffix(dotted).or(Some(number)));
        number.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | 'o' | 'f')))
    };
    let chosen: Vec<_> = files.iter().filter(|(path, _)| **path == index || shard(path)).collect();
    // Shards of the variant, where there are some, and not those without.
    let of_variant = chosen.iter().any(|(path, _)| **path != index && path.contains(&format!("{dotted}-")));
    let chosen = chosen.into_iter().filter(|(path, _)| {
        dotted.is_empty() || **path == index || !of_variant || path.contains(&format!("{dotted}-"))
    });
    chosen.map(|(path, listed)| (path.as_str(), listed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn listing(paths: &[&str]) -> Listing {
        let listed = || Listed { size: 1, hash: Hash::Git("0".into()) };
        Listing {
            source: Source::parse("a/b", None).unwrap(),
            endpoint: Url::parse("http://hub").unwrap(),
            commit: "c".into(),
            files: REQUIRED
                .iter()
                .chain(&TOKENIZER[1..])
                .chain(paths)
                .map(|path| ((*path).to_owned(), listed()))
                .collect(),
        }
    }

    const FP16: [&str; 3] = [
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.fp16.safetensors",
    ];

    #[test]
    fn a_variant_takes_the_plain_name_and_nothing_else_is_taken() {
        let more = ["unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors", "README.md", "LICENSE"];
        let chosen = plan(&listing(&[&FP16[..], &more].concat()), Variant::Fp16).unwrap();
        assert_eq!(chosen.len(), REQUIRED.len() + 2 + 3 + 1);
        let unet = chosen.iter().find(|file| file.origin.path == FP16[0]).unwrap();
        assert_eq!(unet.path, "unet/diffusion_pytorch_model.safetensors");
    }

    #[test]
    fn shards_are_taken_with_their_index() {
        let paths = [
            "unet/diffusion_pytorch_model.safetensors.index.json",
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model-/../../x.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
            "text_encoder/model.safetensors",
        ];
        assert_eq!(plan(&listing(&paths), Variant::Full).unwrap().len(), REQUIRED.len() + 2 + 5);
    }

    #[test]
    fn a_tokenizer_of_today_and_shards_of_a_variant_are_taken() {
        let paths = [
            "tokenizer/tokenizer.json",
            "tokenizer/added_tokens.json",
            "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
            "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00001-of-00004.safetensors",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "text_encoder/model.fp16.safetensors",
        ];
        let mut listing = listing(&paths);
        for path in &TOKENIZER[1..] {
            listing.files.remove(*path);
        }
        let chosen = plan(&listing, Variant::Fp16).unwrap();
        assert_eq!(chosen.len(), REQUIRED.len() + 2 + 3 + 2);
        assert!(!chosen.iter().any(|file| file.path.contains("00004")));
        listing.files.remove("tokenizer/tokenizer.json");
        let told = plan(&listing, Variant::Fp16).unwrap_err().to_string();
        assert!(told.contains("neither `tokenizer/tokenizer.json`"), "{told}");
    }

    #[test]
    fn all_that_is_missing_is_listed_with_a_remedy() {
        let text = |paths: &[&str], variant| plan(&listing(paths), variant).unwrap_err().to_string();
        assert!(text(&FP16, Variant::Full).contains("`--variant fp16` fetches the one that it has"));
        let full = ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"];
        let message = text(&full, Variant::Full);
        assert!(
            message.contains("only `.safetensors`") && message.contains("text_encoder/model.safetensors"),
            "{message}"
        );
        assert!(text(&full, Variant::Fp16).contains("leave out `--variant fp16`"));
    }
}
