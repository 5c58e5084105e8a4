//! The texts that the UNet attends to.

use std::ptr;

use tch::Tensor;

/// Keys and values of one text for every cross-attention, `[1, heads, length, d]`.
pub struct TextKeys(pub(super) Vec<(Tensor, Tensor)>);

/// The texts of a batch.
pub struct Text {
    /// For every cross-attention `[texts, heads, length, d]`: one text for each sample, or one for each branch.
    pub(super) keys_values: Vec<(Tensor, Tensor)>,
    pub(super) windows: i64,
    /// Guidance branches of each window.
    pub(super) branches: i64,
}

impl Text {
    /// The texts of a batch, `branches[b][w]` being that of branch `b` of window `w`.
    pub fn of_batch(branches: &[Vec<&TextKeys>]) -> Self {
        let windows = branches[0].len();
        let shared = branches.iter().all(|texts| texts.iter().all(|text| ptr::eq(*text, texts[0])));
        let texts: Vec<&TextKeys> =
            branches.iter().flat_map(|texts| texts.iter().take(if shared { 1 } else { windows })).copied().collect();
        let stack = |i: usize| {
            let part = |of: fn(&(Tensor, Tensor)) -> &Tensor| {
                Tensor::cat(&texts.iter().map(|text| of(&text.0[i])).collect::<Vec<_>>(), 0)
            };
            (part(|(k, _)| k), part(|(_, v)| v))
        };
        Self {
            keys_values: (0..texts[0].0.len()).map(stack).collect(),
            windows: windows as i64,
            branches: branches.len() as i64,
        }
    }
}
