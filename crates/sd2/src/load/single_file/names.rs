//! The names of the original layout, as those of diffusers and transformers.
//!
//! The tensors are the same, but for the projections of attention in the text encoder of Stable Diffusion 2, which are
//! one tensor there and three here.

/// A tensor of a UNet, whose name begins after `model.diffusion_model.`; each level has `layers` resnets on its way
/// down.
pub(super) fn unet(name: &str, layers: usize) -> Option<String> {
    let fixed = [
        ("time_embed.0.", "time_embedding.linear_1."),
        ("time_embed.2.", "time_embedding.linear_2."),
        ("input_blocks.0.0.", "conv_in."),
        ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."),
    ];
    if let Some(name) = renamed(name, &fixed) {
        return Some(name);
    }
    if let Some(rest) = name.strip_prefix("input_blocks.") {
        let (k, rest) = number(rest)?;
        let (slot, rest) = number(rest)?;
        let (level, layer) = (k.checked_sub(1)? / (layers + 1), (k - 1) % (layers + 1));
        return Some(match (slot, rest.strip_prefix("op.")) {
            (0, Some(rest)) => format!("down_blocks.{level}.downsamplers.0.conv.{rest}"),
            (0, None) => format!("down_blocks.{level}.resnets.{layer}.{}", resnet(rest)?),
            (1, _) => format!("down_blocks.{level}.attentions.{layer}.{rest}"),
            _ => return None,
        });
    }
    if let Some(rest) = name.strip_prefix("middle_block.") {
        let (slot, rest) = number(rest)?;
        return Some(match slot {
            0 => format!("mid_block.resnets.0.{}", resnet(rest)?),
            1 => format!("mid_block.attentions.0.{rest}"),
            2 => format!("mid_block.resnets.1.{}", resnet(rest)?),
            _ => return None,
        });
    }
    let (k, rest) = number(name.strip_prefix("output_blocks.")?)?;
    let (slot, rest) = number(rest)?;
    let (level, layer) = (k / (layers + 1), k % (layers + 1));
    Some(match (slot, rest.strip_prefix("conv.")) {
        (0, _) => format!("up_blocks.{level}.resnets.{layer}.{}", resnet(rest)?),
        // Where a level does not attend, what enlarges it moves up.
        (1 | 2, Some(rest)) => format!("up_blocks.{level}.upsamplers.0.conv.{rest}"),
        (1, None) => format!("up_blocks.{level}.attentions.{layer}.{rest}"),
        _ => return None,
    })
}

fn resnet(name: &str) -> Option<String> {
    let parts = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    renamed(name, &parts)
}

/// A tensor of a VAE with `levels` levels, whose name begins after `first_stage_model.`.
pub(super) fn vae(name: &str, levels: usize) -> Option<String> {
    match name.split_once('.') {
        Some(("decoder", inside)) => coder("decoder", inside, levels),
        // Most panoramas do without it, so its names are not judged here.
        Some(("encoder", inside)) => coder("encoder", inside, levels).or_else(|| Some(name.to_owned())),
        _ => Some(name.to_owned()),
    }
}

/// A tensor of one side of a VAE.
fn coder(side: &str, inside: &str, levels: usize) -> Option<String> {
    let fixed = [
        ("conv_in.", "conv_in."),
        ("conv_out.", "conv_out."),
        ("norm_out.", "conv_norm_out."),
        ("mid.attn_1.norm.", "mid_block.attentions.0.group_norm."),
        ("mid.attn_1.q.", "mid_block.attentions.0.to_q."),
        ("mid.attn_1.k.", "mid_block.attentions.0.to_k."),
        ("mid.attn_1.v.", "mid_block.attentions.0.to_v."),
        ("mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0."),
    ];
    let resnet = |name: &str| name.replacen("nin_shortcut.", "conv_shortcut.", 1);
    if let Some(name) = renamed(inside, &fixed) {
        return Some(format!("{side}.{name}"));
    }
    for (block, number) in [("mid.block_1.", 0), ("mid.block_2.", 1)] {
        if let Some(rest) = inside.strip_prefix(block) {
            return Some(format!("{side}.mid_block.resnets.{number}.{}", resnet(rest)));
        }
    }
    let (blocks, samplers, rest) = if side == "decoder" {
        // Counted from the finest there, from the coarsest here.
        let (level, rest) = number(inside.strip_prefix("up.")?)?;
        (format!("decoder.up_blocks.{}", levels.checked_sub(level + 1)?), "upsample", rest)
    } else {
        let (level, rest) = number(inside.strip_prefix("down.")?)?;
        (format!("encoder.down_blocks.{level}"), "downsample", rest)
    };
    if let Some(rest) = rest.strip_prefix(&format!("{samplers}.conv.")) {
        return Some(format!("{blocks}.{samplers}rs.0.conv.{rest}"));
    }
    let (block, rest) = number(rest.strip_prefix("block.")?)?;
    Some(format!("{blocks}.resnets.{block}.{}", resnet(rest)))
}

/// What a tensor of OpenCLIP's text encoder becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// One tensor.
    One(String),
    /// As many rows for each of these.
    Three([String; 3]),
    /// Nothing that is used: the blocks after the last that counts, and what makes one vector of a text.
    Unused,
}

/// A tensor of OpenCLIP's text encoder, whose name begins after `cond_stage_model.model.`; the first `layers` blocks
/// count.
pub(super) fn open_clip(name: &str, layers: usize) -> Option<Text> {
    let fixed = [
        ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ("ln_final.", "text_model.final_layer_norm."),
    ];
    if matches!(name, "text_projection" | "logit_scale" | "attn_mask" | "logit_bias") || name.starts_with("visual.") {
        return Some(Text::Unused);
    }
    if let Some(name) = renamed(name, &fixed) {
        return Some(Text::One(name));
    }
    let (block, rest) = number(name.strip_prefix("transformer.resblocks.")?)?;
    if block >= layers {
        return Some(Text::Unused);
    }
    let layer = format!("text_model.encoder.layers.{block}");
    for end in ["weight", "bias"] {
        if rest == format!("attn.in_proj_{end}") {
            let three = ["q", "k", "v"].map(|letter| format!("{layer}.self_attn.{letter}_proj.{end}"));
            return Some(Text::Three(three));
        }
    }
    let parts = [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("attn.out_proj.", "self_attn.out_proj."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ];
    Some(Text::One(format!("{layer}.{}", renamed(rest, &parts)?)))
}

/// The name with the first of the beginnings that it has replaced.
fn renamed(name: &str, beginnings: &[(&str, &str)]) -> Option<String> {
    beginnings.iter().find_map(|(old, new)| name.strip_prefix(old).map(|rest| format!("{new}{rest}")))
}

/// A number and what follows its dot.
pub(super) fn number(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((number.parse().ok()?, rest))
}
