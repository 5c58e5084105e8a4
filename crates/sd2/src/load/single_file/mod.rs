//! A checkpoint in one file, in the original layout of Stable Diffusion 1 and 2 ("LDM"), seen as the folder it would
//! be.
//!
//! Everybody who trains or merges models passes such files on. The tensors are those of a folder under [other
//! names](names); the configuration follows from their [shapes] and from [hints]; the tokenizer is in the
//! program.

mod hints;
mod names;
mod probe;
mod shapes;
mod yaml;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use safetensors::{Dtype, SafeTensors};

use crate::load::bytes::{Bytes, map};
use crate::load::error::{Error, Result};
use crate::load::header::{Named, tensors};
use crate::load::problem;
use crate::prediction::Prediction;

const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";

/// What is said of a file that its tensors do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
    /// What the UNet predicts.
    pub prediction: Option<Prediction>,
    /// The side of a window, in latents.
    pub window: Option<i64>,
}

impl Said {
    /// The flag of the first thing that is said, if anything is.
    pub(crate) fn first(&self) -> Option<&'static str> {
        self.prediction.map(|_| "--prediction-type").or(self.window.map(|_| "--window"))
    }
}

/// Whose text encoder a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextKind {
    /// That of Stable Diffusion 1, under the names of transformers.
    Clip,
    /// That of Stable Diffusion 2, under the names of OpenCLIP.
    OpenClip,
}

/// The file.
pub(crate) struct SingleFile {
    path: PathBuf,
    said: Said,
    tensors: BTreeMap<String, Named>,
    metadata: HashMap<String, String>,
    yaml_text: Option<String>,
    /// What a probe of the UNet found, if it told anything.
    probed: OnceLock<Option<Prediction>>,
}

impl std::fmt::Debug for SingleFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl SingleFile {
    /// Reads the header of a file.
    pub(crate) fn open(path: PathBuf, said: Said) -> Result<Self> {
        let shown = path.display().to_string();
        let end = path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        if matches!(end.as_str(), "ckpt" | "pt" | "pth" | "bin" | "pkl") {
            return Err(Error::File { file: shown, problem: format!("is a pickle of PyTorch; {}", problem::PICKLE) });
        }
        let bytes = map(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|_| problem::weights(&shown, &bytes))?;
        let found = tensors(&metadata, 8 + header).into_iter().map(|named| (named.name.clone(), named)).collect();
        let yaml_text = yaml::beside(&path);
        let metadata = metadata.metadata().clone().unwrap_or_default();
        let file = Self { path, said, tensors: found, metadata, yaml_text, probed: OnceLock::new() };
        match file.foreign() {
            Some(what) => Err(Error::File { file: shown, problem: what }),
            None => Ok(file),
        }
    }

    /// What the file is, if it is not such a checkpoint.
    fn foreign(&self) -> Option<String> {
        let has = |part: &str| self.tensors.keys().any(|name| name.contains(part));
        let only = problem::FAMILIES;
        let small = self.tensors.values().filter(|found| {
            !matches!(found.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64 | Dtype::I64 | Dtype::I32)
        });
        let small: Vec<&Named> = small.filter(|found| found.name.ends_with(".weight")).collect();
        if let Some(first) = small.first() {
            return Some(format!(
                "has {} tensors in {:?}, which is not read; give it in F32, F16 or BF16",
                small.len(),
                first.dtype
            ));
        }
        if self.begins("conditioner.embedders.1.")
            || self.begins(&format!("{UNET}label_emb.")) && !self.begins("cond_stage_model.")
        {
            return Some(format!("is a Stable Diffusion XL model; {only}"));
        }
        if has("joint_blocks.") || has("double_blocks.") || has("single_transformer_blocks.") {
            return Some(format!("is a model of another family (its network is a transformer); {only}"));
        }
        if self.begins("control_model.") || self.begins("controlnet_") {
            return Some("is a ControlNet and not a model; it is not supported".to_owned());
        }
        if !self.begins(UNET) {
            if ["lora_", ".lora.", ".alpha", "_lora."].iter().any(|part| has(part)) {
                return Some("is a LoRA and not a model; give it with `--lora` beside a `--model`".to_owned());
            }
            if self.begins("down_blocks.")
                || self.begins("text_model.")
                || self.begins("decoder.")
                || self.begins("encoder.")
            {
                return Some(
                    "is one part of a model and not a whole one; name the folder that has `unet/`, `vae/` and the others"
                        .to_owned(),
                );
            }
            if self.has("emb_params") || self.has("clip_l") || self.begins("string_to_param") {
                return Some("is a textual inversion (an embedding for a word) and not a model".to_owned());
            }
            let first = self.tensors.keys().next().map_or_else(String::new, |name| format!(", but `{name}`"));
            return Some(format!("is not a checkpoint of Stable Diffusion: it has no `{UNET}...`{first}"));
        }
        if self.begins(&format!("{UNET}label_emb.")) {
            return Some(format!("is an unCLIP model or an upscaler, whose UNet takes more than a text; {only}"));
        }
        None
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whose text encoder it has.
    pub(crate) fn text_kind(&self) -> Result<TextKind> {
        if self.begins("cond_stage_model.transformer.") {
            return Ok(TextKind::Clip);
        }
        if self.begins("cond_stage_model.model.") || self.begins("conditioner.embedders.0.model.") {
            return Ok(TextKind::OpenClip);
        }
        Err(self.problem("has no text encoder (`cond_stage_model.`); give a file that has one inside"))
    }

    fn text_prefix(&self, kind: TextKind) -> &'static str {
        match kind {
            TextKind::Clip if self.begins("cond_stage_model.transformer.text_model.") => {
                "cond_stage_model.transformer.text_model."
            }
            TextKind::Clip => "cond_stage_model.transformer.",
            TextKind::OpenClip if self.begins("cond_stage_model.model.") => "cond_stage_model.model.",
            TextKind::OpenClip => "conditioner.embedders.0.model.",
        }
    }

    /// A configuration file of the folder it would be, if there is one of that name.
    pub(crate) fn config(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let config = match path {
            "unet/config.json" => self.unet_config()?,
            "vae/config.json" => self.vae_config()?,
            "text_encoder/config.json" => self.text_config()?,
            "scheduler/scheduler_config.json" => self.scheduler_config()?,
            _ => return Ok(None),
        };
        Ok(Some(config.to_string().into_bytes()))
    }

    /// The file, and the tensors of a part under the names of the folder. What has no such name keeps its own, and is
    /// then said to be unknown.
    pub(crate) fn part(&self, part: &str) -> Result<(Bytes, Vec<Named>)> {
        let named = |name: String, found: &Named| Named {
            name,
            dtype: found.dtype,
            shape: found.shape.clone(),
            range: found.range.clone(),
        };
        let mut all = Vec::new();
        match part {
            "unet" => {
                let layers = self.layers();
                all.extend(self.inside(UNET).map(|(rest, found)| {
                    named(names::unet(rest, layers).unwrap_or_else(|| found.name.clone()), found)
                }));
            }
            "vae" => {
                let levels = self.vae_levels();
                let wanted =
                    self.inside(VAE).filter(|(rest, _)| !rest.starts_with("loss.") && !rest.starts_with("model_ema."));
                all.extend(
                    wanted.map(|(rest, found)| {
                        named(names::vae(rest, levels).unwrap_or_else(|| found.name.clone()), found)
                    }),
                );
            }
            _ => {
                let kind = self.text_kind()?;
                let layers = self.text_layers(kind);
                for (rest, found) in self.inside(self.text_prefix(kind)) {
                    let text = match kind {
                        TextKind::Clip => Some(names::Text::One(rest.to_owned())),
                        TextKind::OpenClip => names::open_clip(rest, layers),
                    };
                    match text {
                        Some(names::Text::One(name)) => all.push(named(name, found)),
                        Some(names::Text::Three(three)) => all.extend(thirds(found, three)),
                        Some(names::Text::Unused) => {}
                        None => all.push(named(found.name.clone(), found)),
                    }
                }
            }
        }
        let bytes = map(&self.path).map_err(|source| Error::Io { path: self.path.clone(), source })?;
        Ok((bytes, all))
    }

    /// What the UNet predicts, as far as it is known.
    pub(crate) fn prediction(&self) -> Prediction {
        self.told_prediction()
            .map(|(prediction, _)| prediction)
            .or_else(|| self.probed.get().copied().flatten())
            .unwrap_or(Prediction::Epsilon)
    }

    /// Whether only a probe of the UNet can tell what it predicts.
    pub(crate) fn needs_probe(&self) -> bool {
        self.told_prediction().is_none() && self.probed.get().is_none()
    }

    /// Notes what a probe found.
    pub(crate) fn probed(&self, prediction: Option<Prediction>) {
        _ = self.probed.set(prediction);
    }

    /// What was concluded about the file, in words.
    pub(crate) fn conclusions(&self) -> String {
        let how = match (self.told_prediction(), self.probed.get()) {
            (Some((_, how)), _) => how,
            (None, Some(Some(_))) => "by a probe of its UNet".to_owned(),
            (None, _) => "which is assumed, for its UNet does not tell; `--prediction-type v` overrules it".to_owned(),
        };
        let what = match self.prediction() {
            Prediction::Epsilon => "noise",
            Prediction::Velocity => "velocity",
        };
        let family = match self.text_kind() {
            Ok(TextKind::Clip) => "1",
            _ => "2",
        };
        let average = if self.begins("model_ema.") { "; its averaged weights (`model_ema.`) are left out" } else { "" };
        format!(
            "`{}` is a Stable Diffusion {family} in one file: it predicts {what} ({how}), and its windows are {} latents wide{average}",
            self.path.display(),
            self.window()
        )
    }

    /// The numbers of a small tensor of floats.
    fn values(&self, name: &str) -> Result<Option<Vec<f64>>> {
        let Some(found) = self.tensors.get(name) else { return Ok(None) };
        let bytes = map(&self.path).map_err(|source| Error::Io { path: self.path.clone(), source })?;
        let bytes = &bytes[found.range.clone()];
        Ok(match found.dtype {
            Dtype::F32 => Some(bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()),
            Dtype::F16 => Some(bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f64()).collect()),
            Dtype::BF16 => Some(bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f64()).collect()),
            Dtype::F64 => Some(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
            _ => None,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn begins(&self, beginning: &str) -> bool {
        self.tensors.range(beginning.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(beginning))
    }

    /// The tensors under a beginning, with the rest of their names.
    fn inside<'a>(&'a self, beginning: &'a str) -> impl Iterator<Item = (&'a str, &'a Named)> {
        let from = self.tensors.range(beginning.to_owned()..);
        from.map_while(move |(name, found)| Some((name.strip_prefix(beginning)?, found)))
    }
}

/// A tensor in three parts of as many rows.
fn thirds(found: &Named, names: [String; 3]) -> Vec<Named> {
    let bytes = found.range.len();
    let mut shape = found.shape.clone();
    if shape.is_empty() || shape[0] % 3 != 0 || !bytes.is_multiple_of(3) {
        return vec![found.clone()];
    }
    shape[0] /= 3;
    let part = |(i, name): (usize, String)| {
        let begin = found.range.start + i * bytes / 3;
        Named { name, dtype: found.dtype, shape: shape.clone(), range: begin..begin + bytes / 3 }
    };
    names.into_iter().enumerate().map(part).collect()
}
