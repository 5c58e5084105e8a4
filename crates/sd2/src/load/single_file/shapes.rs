//! The configuration files that a checkpoint in one file would have, made from names and shapes of its tensors.
//!
//! What no tensor tells is the same in all models of these families: 32 groups in norms, epsilons, the noise schedule,
//! and heads by the text encoder: 8 in the UNet with that of Stable Diffusion 1, one for 64 channels with that of 2.

use serde_json::{Value, json};

use super::names::number;
use super::{SingleFile, TextKind, UNET, VAE};
use crate::load::error::{Error, Result};
use crate::prediction::Prediction;

/// Channels of a head where heads are counted by channels.
const HEAD: i64 = 64;

/// Blocks that are looked for; no model of these families has as many.
const MAX: usize = 1000;

impl SingleFile {
    /// `unet/config.json`.
    pub(super) fn unet_config(&self) -> Result<Value> {
        let layers = self.layers();
        let name = |k: usize, inside: &str| format!("{UNET}input_blocks.{k}.{inside}");
        let levels = (1..MAX)
            .take_while(|level| self.has(&name((level - 1) * (layers + 1) + 1, "0.in_layers.0.weight")))
            .count();
        if levels == 0 {
            return Err(self.problem("has a UNet without `input_blocks`; it is damaged or of another family"));
        }
        let first = |level: usize| level * (layers + 1) + 1;
        let mut channels = Vec::new();
        for level in 0..levels {
            channels.push(self.size(&name(first(level), "0.out_layers.3.weight"), 0)?);
        }
        let attends = |level: &usize| self.has(&name(first(*level), "1.norm.weight"));
        let block =
            |with: &str, level: usize| format!("{}{with}Block2D", if attends(&level) { "CrossAttn" } else { "" });
        let depth = |level: usize| {
            let depth = |prefix: String| {
                (0..MAX).take_while(|i| self.has(&format!("{prefix}.transformer_blocks.{i}.norm1.weight"))).count()
            };
            if attends(&level) { depth(name(first(level), "1")) } else { 1 }
        };
        let heads: Vec<i64> = match self.text_kind()? {
            TextKind::Clip => vec![self.yaml("num_heads").unwrap_or(8); levels],
            TextKind::OpenClip => {
                let head = self.yaml("num_head_channels").filter(|&head| head > 0).unwrap_or(HEAD);
                channels.iter().map(|channels| (channels / head).max(1)).collect()
            }
        };
        let inputs = self.size(&name(0, "0.weight"), 1)?;
        let outputs = self.size(&format!("{UNET}out.2.weight"), 0)?;
        if inputs != outputs {
            return Err(self.problem(&format!("is {}", crate::unet::kind_of(inputs, outputs))));
        }
        let text_width = self.size(&format!("{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"), 1)?;
        Ok(json!({
            "_class_name": "UNet2DConditionModel",
            "sample_size": self.window(),
            "in_channels": inputs,
            "out_channels": outputs,
            "block_out_channels": channels,
            "layers_per_block": layers,
            "down_block_types": (0..levels).map(|level| block("Down", level)).collect::<Vec<_>>(),
            "up_block_types": (0..levels).rev().map(|level| block("Up", level)).collect::<Vec<_>>(),
            "transformer_layers_per_block": (0..levels).map(depth).collect::<Vec<_>>(),
            "attention_head_dim": heads,
            "cross_attention_dim": text_width,
            "norm_num_groups": 32,
        }))
    }

    /// `vae/config.json`.
    pub(super) fn vae_config(&self) -> Result<Value> {
        let levels = self.vae_levels();
        if levels == 0 {
            return Err(self.problem("has no VAE (`first_stage_model.`); give a file that has one inside"));
        }
        let name = |level: usize, block: usize, inside: &str| format!("{VAE}decoder.up.{level}.block.{block}.{inside}");
        let mut channels = Vec::new();
        for level in 0..levels {
            channels.push(self.size(&name(level, 0, "conv1.weight"), 0)?);
        }
        let blocks = (0..MAX).take_while(|block| self.has(&name(0, *block, "conv1.weight"))).count();
        Ok(json!({
            "_class_name": "AutoencoderKL",
            "block_out_channels": channels,
            "layers_per_block": blocks.saturating_sub(1),
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
            "latent_channels": self.size(&format!("{VAE}decoder.conv_in.weight"), 1)?,
            "norm_num_groups": 32,
            "scaling_factor": 0.18215,
            "use_post_quant_conv": self.has(&format!("{VAE}post_quant_conv.weight")),
            "mid_block_add_attention": self.has(&format!("{VAE}decoder.mid.attn_1.norm.weight")),
        }))
    }

    /// `text_encoder/config.json`.
    pub(super) fn text_config(&self) -> Result<Value> {
        let kind = self.text_kind()?;
        let prefix = self.text_prefix(kind);
        let (tokens, positions, first) = match kind {
            TextKind::OpenClip => {
                ("token_embedding.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight")
            }
            TextKind::Clip => (
                "embeddings.token_embedding.weight",
                "embeddings.position_embedding.weight",
                "encoder.layers.0.mlp.fc1.weight",
            ),
        };
        let size = |name: &str, axis| self.size(&format!("{prefix}{name}"), axis);
        let width = size(tokens, 1)?;
        Ok(json!({
            "vocab_size": size(tokens, 0)?,
            "hidden_size": width,
            "intermediate_size": size(first, 0)?,
            "num_hidden_layers": self.text_layers(kind),
            "num_attention_heads": (width / HEAD).max(1),
            "max_position_embeddings": size(positions, 0)?,
            "hidden_act": match kind { TextKind::OpenClip => "gelu", TextKind::Clip => "quick_gelu" },
            "layer_norm_eps": 1e-5,
        }))
    }

    /// `scheduler/scheduler_config.json`.
    pub(super) fn scheduler_config(&self) -> Result<Value> {
        let velocity = self.prediction() == Prediction::Velocity;
        let zero = velocity && self.ends_in_noise()?;
        Ok(json!({
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": false,
            "set_alpha_to_one": false,
            "steps_offset": 1,
            "prediction_type": if velocity { "v_prediction" } else { "epsilon" },
            "rescale_betas_zero_snr": zero,
            // Other spacings never come to the step that is all noise.
            "timestep_spacing": if zero { "trailing" } else { "leading" },
        }))
    }

    /// Resnets of a level of the UNet on its way down: the first block that halves comes after them.
    pub(super) fn layers(&self) -> usize {
        let halves = (1..MAX).take_while(|k| self.begins(&format!("{UNET}input_blocks.{k}.")));
        let halves = halves.into_iter().find(|k| self.has(&format!("{UNET}input_blocks.{k}.0.op.weight")));
        halves.map_or_else(|| self.count(&format!("{UNET}input_blocks.")) - 1, |k: usize| k - 1).max(1)
    }

    /// Levels of the VAE.
    pub(super) fn vae_levels(&self) -> usize {
        self.count(&format!("{VAE}decoder.up."))
    }

    /// Blocks of the text encoder that count. Stable Diffusion 2 leaves out the last one that OpenCLIP has: 23 of 24
    /// count.
    pub(super) fn text_layers(&self, kind: TextKind) -> usize {
        let prefix = self.text_prefix(kind);
        match kind {
            TextKind::Clip => self.count(&format!("{prefix}encoder.layers.")),
            TextKind::OpenClip => {
                let blocks = self.count(&format!("{prefix}transformer.resblocks."));
                // What was converted from the layout of diffusers has lost the last one, and these with it.
                let whole = ["text_projection", "logit_scale", "attn_mask"];
                let whole =
                    blocks == 24 || blocks != 23 && whole.iter().any(|name| self.has(&format!("{prefix}{name}")));
                blocks - usize::from(whole && blocks > 1)
            }
        }
    }

    /// One more than the largest number that follows a beginning of names.
    fn count(&self, beginning: &str) -> usize {
        let inside = self.tensors.range(beginning.to_owned()..).map(|(name, _)| name);
        let inside = inside.take_while(|name| name.starts_with(beginning));
        inside.filter_map(|name| number(&name[beginning.len()..])).map(|(number, _)| number + 1).max().unwrap_or(0)
    }

    /// A size of a tensor that must be there.
    fn size(&self, name: &str, axis: usize) -> Result<i64> {
        let found = self.tensors.get(name).and_then(|found| found.shape.get(axis)).copied();
        found.ok_or_else(|| self.problem(&format!("lacks `{name}`; it is damaged or of another family")))
    }

    pub(super) fn problem(&self, problem: &str) -> Error {
        Error::File { file: self.path().display().to_string(), problem: problem.to_owned() }
    }
}
