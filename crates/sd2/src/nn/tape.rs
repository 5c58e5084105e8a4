//! Backward passes that keep little.
//!
//! Autograd keeps the input of every convolution although its weights are frozen, and both sides of every activation.
//! All a gradient with respect to the *input* needs of norm, activation and convolution is the norm's input: the rest is
//! cheap to compute again or not needed. So the networks have backward passes of their own, which read like their
//! forwards run in reverse, and `Kept` is what the one leaves for the other: a stack.
//!
//! Attention is left to autograd, as a small graph of its own; where memory is short only its input is kept and it is
//! computed again.

use tch::Tensor;

use crate::layout::is_channels_last;

/// What a forward pass leaves for its backward pass.
pub struct Kept {
    stack: Vec<Item>,
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Nothing,
    Thrifty,
    Lavish,
}

enum Item {
    Value(Tensor),
    /// A graph from a leaf to a result.
    Graph(Tensor, Tensor),
}

impl Kept {
    /// For a forward pass that no backward pass will follow.
    pub fn nothing() -> Self {
        Self { stack: Vec::new(), how: How::Nothing }
    }

    /// For a backward pass. If `thrifty`, more is computed twice so that less is kept.
    pub fn new(thrifty: bool) -> Self {
        Self { stack: Vec::new(), how: if thrifty { How::Thrifty } else { How::Lavish } }
    }

    /// Keeps a tensor.
    pub(crate) fn push(&mut self, value: &Tensor) {
        if self.how != How::Nothing {
            self.stack.push(Item::Value(value.shallow_clone()));
        }
    }

    /// The tensor that was kept last.
    pub(crate) fn pop(&mut self) -> Tensor {
        match self.stack.pop() {
            Some(Item::Value(value)) => value,
            _ => panic!("a backward pass takes what its forward pass left, in reverse"),
        }
    }

    /// Applies a function that [`Self::back`] will differentiate.
    pub(crate) fn apply(&mut self, input: &Tensor, function: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        if self.how != How::Lavish {
            self.push(input);
            return function(input);
        }
        let leaf = leaf(input);
        let output = tch::with_grad(|| function(&leaf));
        let value = output.detach();
        self.stack.push(Item::Graph(leaf, output));
        value
    }

    /// The gradient of a function applied by [`Self::apply`]: that of its output to that of its input.
    pub(crate) fn back(&mut self, gradient: &Tensor, function: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        match self.stack.pop() {
            Some(Item::Graph(leaf, output)) => pull(&output, &leaf, gradient),
            Some(Item::Value(input)) => {
                let leaf = leaf(&input);
                let output = tch::with_grad(|| function(&leaf));
                pull(&output, &leaf, gradient)
            }
            None => panic!("a backward pass takes what its forward pass left, in reverse"),
        }
    }
}

fn leaf(input: &Tensor) -> Tensor {
    input.detach().set_requires_grad(true)
}

/// The gradient of an output, pulled back to a leaf of its graph.
pub(crate) fn pull(output: &Tensor, leaf: &Tensor, gradient: &Tensor) -> Tensor {
    // Autograd begins with ones; the gradient of this product with respect to the output is the gradient.
    // Both in the order in which the output lies, for a copy would take as long as a layer.
    let by_pixels = output.dim() == 4 && is_channels_last(output);
    let flat = |x: &Tensor| if by_pixels { x.permute([0, 2, 3, 1]).flatten(0, -1) } else { x.flatten(0, -1) };
    let product = tch::with_grad(|| flat(output).dot(&flat(&gradient.to_kind(output.kind()))));
    Tensor::run_backward(&[product], &[leaf], false, false).swap_remove(0)
}
