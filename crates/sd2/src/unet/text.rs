//! The texts that the UNet attends to.

use std::ptr;

use tch::{Kind, Tensor};

/// Keys and values of one text for every cross-attention, `[1, heads, length, d]`.
pub struct TextKeys(pub(super) Vec<(Tensor, Tensor)>);

/// What a window attends to: a text, or the mixture of two.
///
/// Keys and values are linear in the embedding of a text, so a mixture of them is that of the mixture of embeddings.
#[derive(Clone, Copy)]
pub struct Mixture<'a> {
    text: &'a TextKeys,
    /// Another text and its share, from 0 to 1.
    other: Option<(&'a TextKeys, f64)>,
}

/// The texts of a batch.
pub struct Text {
    /// For every cross-attention `[texts, heads, length, d]`: one text for each sample, or one for each branch.
    pub(super) keys_values: Vec<(Tensor, Tensor)>,
    pub(super) windows: i64,
    /// Guidance branches of each window.
    pub(super) branches: i64,
}

impl<'a> From<&'a TextKeys> for Mixture<'a> {
    fn from(text: &'a TextKeys) -> Self {
        Self { text, other: None }
    }
}

impl<'a> Mixture<'a> {
    /// Two texts, the second with a share from 0 to 1.
    pub fn new(text: &'a TextKeys, other: &'a TextKeys, share: f64) -> Self {
        Self { text, other: (share != 0.0 && !ptr::eq(text, other)).then_some((other, share)) }
    }

    fn is(&self, other: &Self) -> bool {
        ptr::eq(self.text, other.text)
            && match (self.other, other.other) {
                (Some((a, share)), Some((b, other_share))) => ptr::eq(a, b) && share == other_share,
                (None, None) => true,
                _ => false,
            }
    }

    /// The keys or the values of cross-attention `i`. Mixed in fp32.
    fn part(&self, i: usize, of: fn(&(Tensor, Tensor)) -> &Tensor) -> Tensor {
        let part = of(&self.text.0[i]);
        let Some((other, share)) = self.other else { return part.shallow_clone() };
        let other = of(&other.0[i]);
        let mixed = part.to_kind(Kind::Float) * (1.0 - share) + other.to_kind(Kind::Float) * share;
        mixed.to_kind(part.kind())
    }
}

impl Text {
    /// The texts of a batch, `branches[b][w]` being that of branch `b` of window `w`.
    pub fn of_batch<'a, T: Copy + Into<Mixture<'a>>>(branches: &[Vec<T>]) -> Self {
        let windows = branches[0].len();
        let branches: Vec<Vec<Mixture<'a>>> =
            branches.iter().map(|texts| texts.iter().map(|&text| text.into()).collect()).collect();
        let shared = branches.iter().all(|texts| texts.iter().all(|text| text.is(&texts[0])));
        let texts: Vec<&Mixture> =
            branches.iter().flat_map(|texts| texts.iter().take(if shared { 1 } else { windows })).collect();
        let stack = |i: usize| {
            let part = |of: fn(&(Tensor, Tensor)) -> &Tensor| {
                Tensor::cat(&texts.iter().map(|text| text.part(i, of)).collect::<Vec<_>>(), 0)
            };
            (part(|(k, _)| k), part(|(_, v)| v))
        };
        Self {
            keys_values: (0..texts[0].text.0.len()).map(stack).collect(),
            windows: windows as i64,
            branches: branches.len() as i64,
        }
    }
}
