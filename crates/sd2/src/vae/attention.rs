//! The attention of the middle block of encoder and decoder.

use tch::Tensor;

use super::settings::EPS;
use crate::load::weights::Scope;
use crate::nn::layers::{GroupNorm, Linear, attention};

/// Attention scores that are computed at once: 1 GiB in fp32.
const MAX_SCORES: i64 = 1 << 28;

/// The attention of the middle block, with one head. Checkpoints from before 2023 use other names.
pub(super) struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    /// For an input that is multiplied by `scale`; see `Resnet::load_scaled`.
    pub(super) fn load(scope: &Scope, channels: i64, groups: i64, scale: f64) -> Self {
        let projection = |names: &[&str]| Linear::or_conv(&scope.either(names), channels, channels);
        Self {
            group_norm: GroupNorm::load(&scope.at("group_norm"), channels, groups, EPS * scale * scale),
            to_q: projection(&["to_q", "query"]),
            to_k: projection(&["to_k", "key"]),
            to_v: projection(&["to_v", "value"]),
            to_out: projection(&["to_out.0", "proj_attn"]).scaled(scale),
        }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let (n, channels, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
        let pixels = self.group_norm.forward(x).view([n, channels, h * w]).transpose(1, 2);
        let project = |to: &Linear| to.forward(&pixels).unsqueeze(1);
        let (q, k, v) = (project(&self.to_q), project(&self.to_k), project(&self.to_v));
        // Some queries at a time, because libtorch may hold the scores of all of them in memory.
        let queries = (MAX_SCORES / (h * w)).max(1);
        let hidden: Vec<_> = q.split(queries, 2).iter().map(|q| attention(q, &k, &v, false)).collect();
        let hidden = self.to_out.forward(&Tensor::cat(&hidden, 2).squeeze_dim(1));
        x + hidden.transpose(1, 2).reshape([n, channels, h, w])
    }
}
