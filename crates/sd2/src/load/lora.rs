//! LoRA: low-rank changes of weights, added to them while they are loaded.
//!
//! Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685:
//! `W + weight * alpha / rank * up * down`, for linear layers and convolutions. Names are those of kohya
//! (`lora_unet_down_blocks_0_..`), of diffusers (`unet.down_blocks.0...lora_A.weight`, and its older ones) and of peft
//! (`base_model.model...`). Dots and underscores are the same here: a layer is found by its name with underscores only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::bytes::{Bytes, map};
use super::error::{Error, Result};
use super::header::{Named, tensors};
use super::{misfit, problem};

/// How many names a message lists.
const MAX_NAMES: usize = 12;

/// A file of LoRA.
pub(crate) struct Lora {
    path: PathBuf,
    weight: f64,
    file: Bytes,
    /// By part of the model and name with underscores.
    layers: BTreeMap<(&'static str, String), Layer>,
    /// Names that no layer was made of.
    strange: Vec<String>,
    fitted: Mutex<BTreeSet<(&'static str, String)>>,
}

impl std::fmt::Debug for Lora {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.weight)
    }
}

/// The tensors of one layer.
#[derive(Default)]
struct Layer {
    /// Its name in the file.
    name: String,
    down: Option<Named>,
    up: Option<Named>,
    /// Between the two, of convolutions in Tucker's form.
    mid: Option<Named>,
    alpha: Option<f64>,
    /// What the file's metadata scale it by, where it has no alpha of its own.
    scale: Option<f64>,
}

/// What a tensor is to its layer.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Down,
    Up,
    Mid,
    Alpha,
}

/// How names end, by what the tensor is.
const ENDS: [(&str, Role); 16] = [
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_mid.weight", Role::Mid),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_A.default.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    (".lora_A.default_0.weight", Role::Down),
    (".lora_B.default_0.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".alpha", Role::Alpha),
];

/// How names of other methods look, and what these are called.
const OTHERS: [(&str, &str); 7] = [
    ("hada_w", "a LoHa"),
    ("lokr_w", "a LoKr"),
    ("oft_", "an OFT"),
    ("boft_", "a BOFT"),
    ("glora", "a GLoRA"),
    ("dora_scale", "a DoRA"),
    ("lora_magnitude_vector", "a DoRA"),
];

impl Lora {
    /// Reads the names of a file.
    pub(crate) fn open(path: PathBuf, weight: f64) -> Result<Self> {
        let shown = path.display().to_string();
        let wrong = |problem: String| Error::File { file: shown.clone(), problem };
        let file = map(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let (header, metadata) = SafeTensors::read_metadata(&file).map_err(|_| problem::weights(&shown, &file))?;
        let tensors = tensors(&metadata, 8 + header);
        for (part, what) in OTHERS {
            if let Some(Named { name, .. }) = tensors.iter().find(|found| found.name.contains(part)) {
                return Err(wrong(format!("is {what} (`{name}`), and only LoRA is understood")));
            }
        }
        if tensors.iter().any(|found| found.name.starts_with("model.diffusion_model.")) {
            return Err(wrong("is a model in one file and not a LoRA; give it with `--model`".to_owned()));
        }
        let scales = Scales::of(&path, metadata.metadata().as_ref())?;
        let (mut layers, mut strange) = (BTreeMap::<_, Layer>::new(), Vec::new());
        for slot in tensors {
            let Some((stem, role, key)) = understand(&slot.name) else {
                strange.push(slot.name);
                continue;
            };
            if !misfit::readable(slot.dtype) {
                return Err(wrong(format!("has `{}` in {:?}; give it in F32, F16 or BF16", slot.name, slot.dtype)));
            }
            let layer = layers.entry(key).or_default();
            stem.clone_into(&mut layer.name);
            match role {
                Role::Down => layer.down = Some(slot),
                Role::Up => layer.up = Some(slot),
                Role::Mid => layer.mid = Some(slot),
                Role::Alpha => {
                    layer.alpha = Some(numbers(&slot, &file).to_kind(Kind::Double).mean(None).double_value(&[]));
                }
            }
        }
        if layers.is_empty() {
            return Err(wrong(format!("is not a LoRA: it has no such names, but {}", list(&strange))));
        }
        for ((part, _), layer) in &mut layers {
            let (Some(down), Some(up)) = (&layer.down, &layer.up) else {
                return Err(wrong(format!("lacks half of `{}`: a layer is a pair of tensors", layer.name)));
            };
            if down.shape.len() < 2 || up.shape.len() < 2 || up.shape[1] != down.shape[0] && layer.mid.is_none() {
                let (down, up) = (&down.shape, &up.shape);
                return Err(wrong(format!("has `{}` of {down:?} and {up:?}, which cannot be multiplied", layer.name)));
            }
            layer.scale = scales.of_layer(part, &layer.name, down.shape[0]);
        }
        Ok(Self { path, weight, file, layers, strange, fitted: Mutex::default() })
    }

    /// Where it lies, and how much of it is added.
    pub(crate) fn identity(&self) -> (&Path, f64) {
        (&self.path, self.weight)
    }

    /// The layer that changes a weight of a part, if one does.
    pub(crate) fn layer_of(&self, part: &str, weight: &str) -> Option<(&'static str, &str)> {
        let flat = weight.strip_suffix(".weight")?.replace('.', "_");
        let flat = flat.strip_prefix("text_model_").unwrap_or(&flat);
        let (part, name) = self.layers.keys().find(|(of, name)| *of == part && name == flat)?;
        Some((part, name))
    }

    /// A weight with its change, both in fp32.
    ///
    /// # Errors
    /// If the shapes do not fit: the rest of a sentence about the layer.
    pub(crate) fn change(&self, layer: (&'static str, &str), weight: &Tensor) -> std::result::Result<Tensor, String> {
        let key = (layer.0, layer.1.to_owned());
        let Some(layer) = self.layers.get(&key) else { return Ok(weight.shallow_clone()) };
        let (Some(down), Some(up)) = (&layer.down, &layer.up) else { return Ok(weight.shallow_clone()) };
        let rank = down.shape[0];
        let read = |slot: &Named| numbers(slot, &self.file).to_kind(Kind::Float).to_device(weight.device());
        let scale = layer.alpha.map(|alpha| alpha / rank as f64).or(layer.scale).unwrap_or(1.0) * self.weight;
        let misfit = || {
            format!(
                "`{}` of {:?} and {:?} does not fit a weight of {:?}",
                layer.name,
                down.shape,
                up.shape,
                weight.size()
            )
        };
        let (down, up) = (read(down), read(up));
        let delta = match &layer.mid {
            None => up.flatten(1, -1).f_matmul(&down.flatten(1, -1)),
            Some(mid) => Tensor::f_einsum(
                "oi,ijkl,jc->ockl",
                &[up.flatten(1, -1), read(mid), down.flatten(1, -1)],
                None::<&[i64]>,
            ),
        };
        let delta = delta.map_err(|_| misfit())?;
        let same = delta.numel() == weight.numel() && delta.size()[0] == weight.size()[0];
        if !same {
            return Err(misfit());
        }
        self.fitted.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        Ok(weight + delta.view(weight.size().as_slice()) * scale)
    }

    /// What it has that changed nothing; to be asked when all parts are loaded.
    ///
    /// # Errors
    /// If nothing of it changed anything.
    pub(crate) fn unused(&self) -> Result<Option<String>> {
        let fitted = self.fitted.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = self.layers.iter().filter(|(key, _)| !fitted.contains(*key)).map(|(_, layer)| layer.name.clone());
        let unused: Vec<String> = unused.chain(self.strange.iter().cloned()).collect();
        let file = self.path.display();
        if fitted.is_empty() {
            let problem = format!("fits nothing of this model, so it is for another one: {}", list(&unused));
            return Err(Error::File { file: file.to_string(), problem });
        }
        Ok((!unused.is_empty()).then(|| {
            let (fits, all) = (fitted.len(), self.layers.len());
            format!("`{file}`: {fits} of {all} layers are added; these fit nothing and are left out: {}", list(&unused))
        }))
    }
}

/// The numbers of a tensor.
fn numbers(found: &Named, file: &[u8]) -> Tensor {
    let kind = match found.dtype {
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        _ => Kind::Float,
    };
    Tensor::from_data_size(&file[found.range.clone()], &found.shape, kind)
}

/// The name of the layer that a tensor belongs to, what it is to it, and which layer of the model that is.
fn understand(name: &str) -> Option<(&str, Role, (&'static str, String))> {
    let (stem, role) = ENDS.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)))?;
    let plain = stem.strip_prefix("base_model.model.").unwrap_or(stem);
    let prefixes = [
        ("lora_unet_", "unet"),
        ("lora_te_", "text_encoder"),
        ("lora_te1_", "text_encoder"),
        ("unet.", "unet"),
        ("text_encoder.", "text_encoder"),
        ("lora_te2_", "text_encoder_2"),
        ("text_encoder_2.", "text_encoder_2"),
    ];
    let (part, rest) = prefixes
        .iter()
        .find_map(|(prefix, part)| Some((*part, plain.strip_prefix(prefix)?)))
        .unwrap_or_else(|| (if plain.starts_with("text_model") { "text_encoder" } else { "unet" }, plain));
    let rest = rest.strip_prefix("base_model.model.").unwrap_or(rest);
    let mut flat = rest.replace(".processor.", ".").replace('.', "_");
    // Names from before 2024 are of the attention processors.
    if let Some(short) = flat.strip_suffix("_to_out") {
        flat = if part == "unet" { format!("{short}_to_out_0") } else { format!("{short}_out_proj") };
    } else if part == "text_encoder" {
        for letter in ["q", "k", "v"] {
            if let Some(short) = flat.strip_suffix(&format!("_to_{letter}")) {
                flat = format!("{short}_{letter}_proj");
                break;
            }
        }
    }
    let flat = flat.strip_prefix("text_model_").map(str::to_owned).unwrap_or(flat);
    Some((stem, role, (part, flat)))
}

/// What peft's configuration, beside the file or in its metadata, scales layers by.
#[derive(Default)]
struct Scales(Vec<(String, Value)>);

impl Scales {
    fn of(path: &Path, metadata: Option<&std::collections::HashMap<String, String>>) -> Result<Self> {
        if let Some(text) = metadata.and_then(|metadata| metadata.get("lora_adapter_metadata")) {
            let values: serde_json::Map<String, Value> = problem::json(&path.display().to_string(), text.as_bytes())?;
            return Ok(Self(values.into_iter().collect()));
        }
        let config = path.with_file_name("adapter_config.json");
        let is_peft = path.file_name().is_some_and(|name| name == "adapter_model.safetensors");
        match std::fs::read(&config) {
            Ok(bytes) if is_peft => {
                let values: serde_json::Map<String, Value> = problem::json(&config.display().to_string(), &bytes)?;
                Ok(Self(values.into_iter().collect()))
            }
            _ => Ok(Self::default()),
        }
    }

    fn get(&self, part: &str, key: &str) -> Option<&Value> {
        let names = [format!("{part}.{key}"), key.to_owned()];
        names.iter().find_map(|name| self.0.iter().find(|(known, _)| known == name)).map(|(_, value)| value)
    }

    fn of_layer(&self, part: &str, layer: &str, rank: i64) -> Option<f64> {
        let pattern = self.get(part, "alpha_pattern").and_then(Value::as_object);
        let own = pattern.and_then(|pattern| pattern.iter().find(|(name, _)| layer.ends_with(name.as_str())));
        let alpha = own.map(|(_, alpha)| alpha).or_else(|| self.get(part, "lora_alpha"))?.as_f64()?;
        let rank = rank as f64;
        let root = self.get(part, "use_rslora").and_then(Value::as_bool) == Some(true);
        Some(alpha / if root { rank.sqrt() } else { rank })
    }
}

/// The first names of several, and how many more there are.
fn list(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(MAX_NAMES).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(MAX_NAMES) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Bundle;
    use crate::load::weights::Weights;
    use crate::placement::Placement;

    #[test]
    fn all_names_of_a_layer_are_one() {
        let attention = ("unet", "down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0".to_owned());
        let text = ("text_encoder", "encoder_layers_3_self_attn_out_proj".to_owned());
        for (name, expected, role) in [
            (
                "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0.lora_down.weight",
                &attention,
                Role::Down,
            ),
            ("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0.lora_B.weight", &attention, Role::Up),
            (
                "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0.lora.down.weight",
                &attention,
                Role::Down,
            ),
            (
                "down_blocks.0.attentions.1.transformer_blocks.0.attn1.processor.to_out_lora.up.weight",
                &attention,
                Role::Up,
            ),
            (
                "base_model.model.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
                &attention,
                Role::Down,
            ),
            ("lora_te_text_model_encoder_layers_3_self_attn_out_proj.alpha", &text, Role::Alpha),
            (
                "text_encoder.text_model.encoder.layers.3.self_attn.out_proj.lora_linear_layer.up.weight",
                &text,
                Role::Up,
            ),
            ("text_encoder.text_model.encoder.layers.3.self_attn.to_out_lora.down.weight", &text, Role::Down),
            (
                "base_model.model.text_model.encoder.layers.3.self_attn.out_proj.lora_A.default.weight",
                &text,
                Role::Down,
            ),
        ] {
            let (_, found, key) = understand(name).unwrap_or_else(|| panic!("{name}"));
            assert!(found == role && key == *expected, "{name}: {key:?}");
        }
        assert!(understand("model.diffusion_model.out.0.weight").is_none());
    }

    /// Linear layers and convolutions, on random weights.
    #[test]
    fn merged_weights_are_those_of_peft() {
        const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
        let expected = Tensor::read_safetensors(format!("{FIXTURES}/loading/lora/expected.safetensors")).unwrap();
        assert!(expected.len() > 200);
        let f32 = Placement::new(tch::Device::Cpu, Kind::Float);
        for (file, parts) in [
            ("kohya.safetensors", &["unet", "text_encoder"][..]),
            ("diffusers.safetensors", &["unet", "text_encoder"]),
            ("peft/adapter_model.safetensors", &["unet"]),
        ] {
            let bundle = Bundle::open(format!("{FIXTURES}/bundles/epsilon")).unwrap();
            let bundle = bundle.with_lora(format!("{FIXTURES}/loading/lora/{file}").into(), 1.0).unwrap();
            let open = |part, stem| Weights::open(&bundle, part, stem, f32, Kind::Float).unwrap();
            let weights = [open("unet", "diffusion_pytorch_model"), open("text_encoder", "model")];
            for (name, expected) in &expected {
                let (part, name) = name.split_once('.').unwrap();
                if !parts.contains(&part) {
                    continue;
                }
                let (weights, name) = match part {
                    "unet" => (&weights[0], name.to_owned()),
                    _ => (&weights[1], format!("text_model.{}", name.trim_start_matches("text_model."))),
                };
                let found = weights.root().tensor(&name, &expected.size());
                let error = (found - expected).abs().max().double_value(&[]);
                assert!(error < 1e-5, "{file} {name}: {error}");
            }
        }
    }
}
