//! The tape: what a forward pass records for its backward pass.
//!
//! Autograd keeps the input of every convolution, although the weights are frozen, and both sides of every activation.
//! A gradient with respect to the *input* needs less: of norm, activation and convolution only the norm's input. The
//! rest is cheap to recompute or not needed. So the networks have backward passes of their own, which read like their
//! forward passes in reverse. A [`Tape`] is a stack: the forward pass pushes, the backward pass pops.
//!
//! Attention is left to autograd, as a small graph of its own. With gradient checkpointing (Chen et al., "Training Deep
//! Nets with Sublinear Memory Cost", arXiv 1604.06174) only its input is recorded and the graph is recomputed.

use tch::Tensor;

use crate::layout::{channels_last, is_channels_last};

/// Gradient checkpointing: whether the backward pass recomputes the activations of attention to save memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpointing {
    /// Record the inputs of attention only.
    On,
    /// Record its graph: faster, and more memory.
    Off,
}

/// What one forward pass recorded. Its backward pass consumes it.
pub struct Tape {
    entries: Vec<Entry>,
    /// `None` for a forward pass without a backward pass.
    checkpointing: Option<Checkpointing>,
}

enum Entry {
    Value(Tensor),
    Graph { leaf: Tensor, output: Tensor },
}

impl Tape {
    /// An empty tape to record on.
    pub(crate) fn new(checkpointing: Checkpointing) -> Self {
        Self { entries: Vec::new(), checkpointing: Some(checkpointing) }
    }

    /// A tape that records nothing, for inference.
    pub(crate) fn off() -> Self {
        Self { entries: Vec::new(), checkpointing: None }
    }

    /// Records a tensor.
    pub(crate) fn push(&mut self, value: &Tensor) {
        if self.checkpointing.is_some() {
            self.entries.push(Entry::Value(value.shallow_clone()));
        }
    }

    /// The last recorded tensor.
    ///
    /// # Panics
    /// If the backward pass does not mirror the forward pass.
    pub(crate) fn pop(&mut self) -> Tensor {
        match self.entries.pop() {
            Some(Entry::Value(value)) => value,
            Some(Entry::Graph { .. }) | None => panic!("a backward pass mirrors its forward pass"),
        }
    }

    /// Applies a function and records what [`Self::backward`] needs to differentiate it.
    pub(crate) fn record(&mut self, input: &Tensor, function: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        if self.checkpointing != Some(Checkpointing::Off) {
            self.push(input);
            return function(input);
        }
        let leaf = leaf(input);
        let output = tch::with_grad(|| function(&leaf));
        let value = output.detach();
        self.entries.push(Entry::Graph { leaf, output });
        value
    }

    /// The backward pass of a recorded function, which is given again to be recomputed: from the gradient of its output
    /// to that of its input.
    ///
    /// # Panics
    /// If the backward pass does not mirror the forward pass.
    pub(crate) fn backward(&mut self, gradient: &Tensor, function: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        match self.entries.pop() {
            Some(Entry::Graph { leaf, output }) => vjp(&output, &leaf, gradient),
            Some(Entry::Value(input)) => {
                let leaf = leaf(&input);
                let output = tch::with_grad(|| function(&leaf));
                vjp(&output, &leaf, gradient)
            }
            None => panic!("a backward pass mirrors its forward pass"),
        }
    }
}

fn leaf(input: &Tensor) -> Tensor {
    input.detach().set_requires_grad(true)
}

/// The vector-Jacobian product: the gradient of `leaf`, from that of `output`, which autograd has the graph of.
///
/// # Panics
/// If libtorch fails.
pub(crate) fn vjp(output: &Tensor, leaf: &Tensor, gradient: &Tensor) -> Tensor {
    let gradient = gradient.to_kind(output.kind());
    // In the memory order of `output`, because libtorch has the fastest kernels for both in one.
    let pixels_first = output.dim() == 4 && is_channels_last(output);
    let gradient = if pixels_first { channels_last(&gradient) } else { gradient.contiguous() };
    let gradients = libtorch::backward(&[(output, &gradient)], &[leaf]);
    gradients.unwrap_or_else(|error| panic!("{error}")).swap_remove(0)
}
