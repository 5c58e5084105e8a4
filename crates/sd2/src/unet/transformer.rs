//! `Transformer2DModel` and its `BasicTransformerBlock`: self-attention, cross-attention to the text, GEGLU.

use tch::{Kind, Tensor};

use super::config::LoadContext;
use super::text::Text;
use crate::layout::copies;
use crate::load::weights::Scope;
use crate::nn::layers::{GroupNorm, LayerNorm, Linear, attention, merge_heads, split_heads};

/// Attention over the pixels of a feature map and to the text.
pub(crate) struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<Block>,
    proj_out: Linear,
}

impl Transformer {
    pub(crate) fn load(scope: &Scope, channels: i64, heads: i64, depth: i64, context: &mut LoadContext) -> Self {
        Self {
            norm: GroupNorm::load(&scope.at("norm"), channels, context.norm_groups, 1e-6),
            proj_in: Linear::or_conv(&scope.at("proj_in"), channels, channels),
            blocks: (0..depth)
                .map(|i| Block::load(&scope.at("transformer_blocks").at(i), channels, heads, context))
                .collect(),
            proj_out: Linear::or_conv(&scope.at("proj_out"), channels, channels),
        }
    }

    pub(crate) fn project_text(&self, embedding: &Tensor, into: &mut Vec<(Tensor, Tensor)>) {
        into.extend(self.blocks.iter().map(|block| block.project_text(embedding)));
    }

    /// `[n, channels, h, w]` to the same, or to one copy for each guidance branch if `x` is the same for all branches.
    pub(crate) fn forward(&self, x: &Tensor, text: &Text) -> Tensor {
        let (n, channels, h, w) = x.size4().expect("feature maps are [n, channels, h, w]");
        let pixels = self.norm.forward(x).permute([0, 2, 3, 1]).reshape([n, h * w, channels]);
        let mut hidden = self.proj_in.forward(&pixels);
        for block in &self.blocks {
            hidden = block.forward(hidden, text);
        }
        let branched = hidden.size()[0];
        let hidden = self.proj_out.forward(&hidden).view([branched, h, w, channels]).permute([0, 3, 1, 2]);
        hidden + copies(x, branched / n)
    }
}

struct Block {
    norm1: LayerNorm,
    attn1_qkv: Linear,
    attn1_out: Linear,
    norm2: LayerNorm,
    attn2_q: Linear,
    attn2_kv: Linear,
    attn2_out: Linear,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
    heads: i64,
    upcast: bool,
    /// Its index among the cross-attentions of the UNet, and so in a [`Text`].
    index: usize,
}

impl Block {
    fn load(scope: &Scope, width: i64, heads: i64, context: &mut LoadContext) -> Self {
        let norm = |name| LayerNorm::load(&scope.at(name), width, 1e-5);
        let (attn1, attn2) = (scope.at("attn1"), scope.at("attn2"));
        Self {
            norm1: norm("norm1"),
            attn1_qkv: Linear::fused(
                &["to_q", "to_k", "to_v"].map(|name| Linear::without_bias(&attn1.at(name), width, width)),
            ),
            attn1_out: Linear::load(&attn1.at("to_out.0"), width, width),
            norm2: norm("norm2"),
            attn2_q: Linear::without_bias(&attn2.at("to_q"), width, width),
            attn2_kv: Linear::fused(
                &["to_k", "to_v"].map(|name| Linear::without_bias(&attn2.at(name), context.text_width, width)),
            ),
            attn2_out: Linear::load(&attn2.at("to_out.0"), width, width),
            norm3: norm("norm3"),
            ff_in: Linear::load(&scope.at("ff.net.0.proj"), width, 8 * width),
            ff_out: Linear::load(&scope.at("ff.net.2"), 4 * width, width),
            heads,
            upcast: context.upcast_attention,
            index: context.next_cross_attention(),
        }
    }

    /// Keys and values `[1, heads, length, d]` of a text `[1, length, text width]`.
    fn project_text(&self, embedding: &Tensor) -> (Tensor, Tensor) {
        let kv = self.attn2_kv.forward(embedding).chunk(2, -1);
        (split_heads(&kv[0], self.heads), split_heads(&kv[1], self.heads))
    }

    fn forward(&self, x: Tensor, text: &Text) -> Tensor {
        let qkv = self.attn1_qkv.forward(&self.norm1.forward(&x)).chunk(3, -1);
        let [q, k, v] = [0, 1, 2].map(|i: usize| split_heads(&qkv[i], self.heads));
        let x = x + self.attn1_out.forward(&merge_heads(&self.attend(&q, &k, &v)));
        // Up to this query all guidance branches are the same.
        let q = self.attn2_q.forward(&self.norm2.forward(&x));
        let (x, q) = match text.branches / (x.size()[0] / text.windows) {
            1 => (x, q),
            copies => (x.repeat([copies, 1, 1]), q.repeat([copies, 1, 1])),
        };
        let x = x + self.attn2_out.forward(&self.attend_to_text(&q, text));
        let gated = self.ff_in.forward(&self.norm3.forward(&x)).chunk(2, -1);
        let hidden = &gated[0] * gated[1].gelu("none");
        x + self.ff_out.forward(&hidden)
    }

    /// Cross-attention. Windows with the same text become one sequence of queries, so that keys and values of the text
    /// are not copied for each window.
    fn attend_to_text(&self, q: &Tensor, text: &Text) -> Tensor {
        let (k, v) = &text.keys_values[self.index];
        let (n, l, width) = q.size3().expect("queries are [n, l, width]");
        let texts = k.size()[0];
        let q = split_heads(&q.view([texts, n / texts * l, width]), self.heads);
        merge_heads(&self.attend(&q, k, v)).view([n, l, width])
    }

    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        if !self.upcast {
            return attention(q, k, v, false);
        }
        let [q32, k32, v32] = [q, k, v].map(|x| x.to_kind(Kind::Float));
        attention(&q32, &k32, &v32, false).to_kind(q.kind())
    }
}
