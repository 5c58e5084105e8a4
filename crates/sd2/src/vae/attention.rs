//! The attention of the middle block of encoder and decoder.

use std::collections::VecDeque;

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
        let mut attending = self.begin(x);
        while !attending.advance() {}
        self.finish(attending)
    }

    /// [`Self::forward`] in parts: some queries at a time, because libtorch may hold the scores of all of them in
    /// memory.
    pub(super) fn begin(&self, x: &Tensor) -> Attending {
        let (n, channels, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
        let pixels = self.group_norm.forward(x).view([n, channels, h * w]).transpose(1, 2);
        let project = |to: &Linear| to.forward(&pixels).unsqueeze(1);
        let (q, k, v) = (project(&self.to_q), project(&self.to_k), project(&self.to_v));
        let queries = q.split(queries(h * w), 2).into();
        Attending { x: x.shallow_clone(), queries, k, v, hidden: Vec::new() }
    }

    /// The output, when all queries are answered.
    pub(super) fn finish(&self, attending: Attending) -> Tensor {
        let Attending { x, hidden, .. } = attending;
        let hidden = self.to_out.forward(&Tensor::cat(&hidden, 2).squeeze_dim(1));
        &x + hidden.transpose(1, 2).reshape(x.size())
    }
}

/// An attention of which some queries are answered.
pub(super) struct Attending {
    x: Tensor,
    queries: VecDeque<Tensor>,
    k: Tensor,
    v: Tensor,
    hidden: Vec<Tensor>,
}

impl Attending {
    /// Answers some more queries. Returns whether none are left.
    pub(super) fn advance(&mut self) -> bool {
        if let Some(q) = self.queries.pop_front() {
            self.hidden.push(attention(&q, &self.k, &self.v, false));
        }
        self.queries.is_empty()
    }

    /// How often it advances for a map of a number of pixels.
    pub(super) fn parts(pixels: i64) -> i64 {
        (pixels - 1) / queries(pixels) + 1
    }

    /// Numbers that it keeps.
    pub(super) fn numbers(&self) -> i64 {
        let kept = [&self.x, &self.k, &self.v];
        kept.into_iter().chain(&self.queries).chain(&self.hidden).map(|tensor| tensor.numel() as i64).sum()
    }
}

/// How many queries are answered at once, by the number of keys.
fn queries(keys: i64) -> i64 {
    (MAX_SCORES / keys).max(1)
}
