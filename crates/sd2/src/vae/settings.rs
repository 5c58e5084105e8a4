//! `vae/config.json`.

use crate::load::config::Config;
use crate::load::{Bundle, Result};

/// Epsilon of all norms of the VAE.
pub(super) const EPS: f64 = 1e-6;

/// What the configuration says.
pub(super) struct Settings {
    /// From the finest to the coarsest.
    pub(super) channels: Vec<i64>,
    pub(super) layers: i64,
    pub(super) groups: i64,
    pub(super) latent_channels: i64,
    pub(super) scaling_factor: f64,
    pub(super) shift_factor: f64,
    pub(super) quant_conv: bool,
    pub(super) post_quant_conv: bool,
    pub(super) mid_attention: bool,
}

impl Settings {
    pub(super) fn read(bundle: &Bundle) -> Result<Self> {
        let mut c = Config::read(bundle, "vae/config.json", &["AutoencoderKL"])?;
        let channels: Vec<i64> = c.or("block_out_channels", vec![64]);
        let settings = Self {
            layers: c.size("layers_per_block", Some(1)),
            groups: c.size("norm_num_groups", Some(32)),
            latent_channels: c.size("latent_channels", Some(4)),
            scaling_factor: c.or("scaling_factor", 0.18215),
            shift_factor: c.or("shift_factor", 0.0),
            quant_conv: c.or("use_quant_conv", true),
            post_quant_conv: c.or("use_post_quant_conv", true),
            mid_attention: c.or("mid_block_add_attention", true),
            channels,
        };
        if settings.channels.is_empty() || settings.channels.iter().any(|&n| n < 1 || n % settings.groups != 0) {
            c.problem(format!(
                "`block_out_channels` is `{:?}`, not a list of multiples of `norm_num_groups` {}",
                settings.channels, settings.groups
            ));
        }
        for (key, block) in [("up_block_types", "UpDecoderBlock2D"), ("down_block_types", "DownEncoderBlock2D")] {
            let types: Vec<String> = c.or(key, vec![block.to_owned()]);
            if types.len() != settings.channels.len() || types.iter().any(|kind| kind != block) {
                c.problem(format!("`{key}` is `{types:?}`; supported: {} of `{block}`", settings.channels.len()));
            }
        }
        c.only("act_fn", "silu");
        c.only("in_channels", 3);
        c.only("out_channels", 3);
        c.none(&["latents_mean", "latents_std"]);
        // They advise on dtypes and on sizes of training pictures.
        c.ignore(&["force_upcast", "sample_size", "dtype", "torch_dtype"]);
        c.finish()?;
        Ok(settings)
    }
}
