//! `unet/config.json`, and what the parts of the UNet need of it while they load.

use crate::load::config::Config;
use crate::load::{Bundle, Result, problem};
use crate::placement::Placement;

/// The architecture of a `UNet2DConditionModel`, as far as it varies.
pub(crate) struct Settings {
    pub(crate) sample_size: i64,
    pub(crate) in_channels: i64,
    pub(crate) out_channels: i64,
    pub(crate) center_input: bool,
    pub(crate) text_width: i64,
    pub(crate) norm_groups: i64,
    pub(crate) norm_eps: f64,
    pub(crate) flip_sin_to_cos: bool,
    pub(crate) freq_shift: f64,
    pub(crate) upcast_attention: bool,
    pub(crate) downsample_padding: i64,
    /// From the finest to the coarsest.
    pub(crate) levels: Vec<Level>,
    /// Whether the up block of each level attends to the text, from the finest to the coarsest.
    pub(crate) up_attends: Vec<bool>,
}

/// One resolution of the UNet.
#[derive(Clone, Copy)]
pub(crate) struct Level {
    pub(crate) channels: i64,
    pub(crate) layers: i64,
    pub(crate) heads: i64,
    /// Transformer layers after each resnet.
    pub(crate) depth: i64,
    /// Whether the down block attends to the text.
    pub(crate) down_attends: bool,
}

/// What the parts of the UNet share while they are loaded.
pub(crate) struct LoadContext {
    pub(crate) norm_groups: i64,
    pub(crate) norm_eps: f64,
    pub(crate) time_width: i64,
    pub(crate) text_width: i64,
    pub(crate) upcast_attention: bool,
    /// Resnets so far: the index of the next one.
    resnets: usize,
    /// Cross-attentions so far: the index of the next one.
    cross_attentions: usize,
}

impl LoadContext {
    pub(crate) fn new(settings: &Settings, placement: Placement) -> Self {
        Self {
            norm_groups: settings.norm_groups,
            norm_eps: settings.norm_eps,
            time_width: 4 * settings.levels[0].channels,
            text_width: settings.text_width,
            upcast_attention: settings.upcast_attention && placement.upcast_attention,
            resnets: 0,
            cross_attentions: 0,
        }
    }

    pub(crate) fn next_resnet(&mut self) -> usize {
        self.resnets += 1;
        self.resnets - 1
    }

    pub(crate) fn next_cross_attention(&mut self) -> usize {
        self.cross_attentions += 1;
        self.cross_attentions - 1
    }
}

impl Settings {
    pub(crate) fn read(bundle: &Bundle) -> Result<Self> {
        let mut c = Config::read(bundle, "unet/config.json", &["UNet2DConditionModel"])?;
        if c.is("addition_embed_type", "text_time") {
            return Err(c.refuse(format!("this is the UNet of Stable Diffusion XL; {}", problem::FAMILIES)));
        }
        let channels: Vec<i64> = c.or("block_out_channels", vec![320, 640, 1280, 1280]);
        let n = channels.len();
        if n == 0 || channels.iter().any(|&channels| channels < 1) {
            c.problem(format!("`block_out_channels` is `{channels:?}`, not a list of positive numbers"));
        }
        let down_attends = attends(&mut c, "down_block_types", n, ("CrossAttnDownBlock2D", "DownBlock2D"));
        let mut up_attends = attends(&mut c, "up_block_types", n, ("CrossAttnUpBlock2D", "UpBlock2D"));
        up_attends.reverse();
        let layers = c.sizes("layers_per_block", n, Some(2));
        let depths = c.sizes("transformer_layers_per_block", n, Some(1));
        // In this class the key is the number of heads, despite its name.
        let heads = c.sizes("attention_head_dim", n, Some(8));
        let settings = Self {
            sample_size: c.side("sample_size"),
            in_channels: c.size("in_channels", Some(4)),
            out_channels: c.size("out_channels", Some(4)),
            center_input: c.or("center_input_sample", false),
            text_width: c.size("cross_attention_dim", Some(1280)),
            norm_groups: c.size("norm_num_groups", Some(32)),
            norm_eps: c.or("norm_eps", 1e-5),
            flip_sin_to_cos: c.or("flip_sin_to_cos", true),
            freq_shift: c.or("freq_shift", 0.0),
            upcast_attention: c.or("upcast_attention", false),
            downsample_padding: c.or("downsample_padding", 1),
            levels: (0..n)
                .map(|i| Level {
                    channels: channels[i].max(1),
                    layers: layers[i],
                    heads: heads[i],
                    depth: depths[i],
                    down_attends: down_attends[i],
                })
                .collect(),
            up_attends,
        };
        if settings.in_channels != settings.out_channels {
            c.problem(format!("this is {}", kind_of(settings.in_channels, settings.out_channels)));
        }
        for level in &settings.levels {
            if level.channels % settings.norm_groups != 0 {
                c.problem(format!(
                    "`block_out_channels` has {}, not a multiple of `norm_num_groups` {}",
                    level.channels, settings.norm_groups
                ));
            }
            if level.channels % level.heads != 0 {
                c.problem(format!(
                    "`block_out_channels` has {}, not a multiple of its `attention_head_dim` {}",
                    level.channels, level.heads
                ));
            }
        }
        if !matches!(settings.downsample_padding, 0 | 1) {
            c.problem(format!("`downsample_padding` is `{}`; supported: `0`, `1`", settings.downsample_padding));
        }
        only_defaults(&mut c);
        c.finish()?;
        Ok(settings)
    }
}

/// What a UNet is that takes other channels than it gives.
pub(crate) fn kind_of(inputs: i64, outputs: i64) -> String {
    let kind = match inputs {
        5 => "a depth-to-image model, which takes a map of depths",
        7 => "an upscaler, which takes a small picture",
        8 => "a model that edits pictures, or one with twice the latents,",
        9 => "an inpainting model, which takes a mask and a masked picture",
        _ => "a model that takes more than latents",
    };
    format!(
        "{kind} and cannot draw from a text alone (`in_channels` {inputs}, `out_channels` {outputs}); name a text-to-image \
         model, which has 4 of both"
    )
}

/// For each block whether its type is the first of two, which attends to the text.
fn attends(c: &mut Config, key: &str, n: usize, (with, without): (&str, &str)) -> Vec<bool> {
    let types: Vec<String> = c.need(key);
    if types.len() != n || types.iter().any(|kind| kind != with && kind != without) {
        c.problem(format!("`{key}` is `{types:?}`; supported: {n} of `{with}` and `{without}`"));
        return vec![false; n];
    }
    types.iter().map(|kind| kind == with).collect()
}

/// Options of the class of which this crate supports one value.
fn only_defaults(c: &mut Config) {
    c.only("act_fn", "silu");
    c.only("mid_block_type", "UNetMidBlock2DCrossAttn");
    c.only("time_embedding_type", "positional");
    c.only("resnet_time_scale_shift", "default");
    c.only("conv_in_kernel", 3);
    c.only("conv_out_kernel", 3);
    c.only("mid_block_scale_factor", 1);
    c.only("resnet_out_scale_factor", 1);
    c.only("attention_type", "default");
    for key in ["only_cross_attention", "dual_cross_attention", "class_embeddings_concat", "resnet_skip_time_act"] {
        c.only(key, false);
    }
    c.none(&[
        "num_attention_heads",
        "class_embed_type",
        "num_class_embeds",
        "addition_embed_type",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
        "time_cond_proj_dim",
        "projection_class_embeddings_input_dim",
        "reverse_transformer_layers_per_block",
        "cross_attention_norm",
    ]);
    if c.take::<bool>("mid_block_only_cross_attention") == Some(true) {
        c.problem("`mid_block_only_cross_attention` is `true`; supported: `null`".to_owned());
    }
    // Both ways of projecting compute the same; the others are of embeddings that are excluded above, or of training.
    c.ignore(&[
        "use_linear_projection",
        "addition_embed_type_num_heads",
        "addition_time_embed_dim",
        "dropout",
        "dtype",
        "torch_dtype",
    ]);
}
