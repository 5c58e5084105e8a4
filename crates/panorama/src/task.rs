//! The pieces of work that a panorama is made of, and their results.

use std::cell::RefCell;
use std::rc::Rc;

use geometry::{Layout, Nearest};
use sd2::ddim::Step;
use sd2::lpips::Features;
use sd2::unet::{Mixture, TextKeys, TimeTable};
use sd2::vae::Decoding;
use tch::Tensor;

use crate::picture::Picture;
use crate::range::Network;

/// What is computed for a task. Only tasks of one stage go in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The guided output of the UNet for a window.
    Denoise,
    /// The perceptual features of the picture a window is heading for.
    Target,
    /// The gradient, with respect to a window, of its perceptual distance to the target.
    Synchronise,
    /// A part of the picture of the whole panorama.
    Decode,
}

/// A piece of work of one panorama.
pub struct Task {
    /// `[1, c, h, w]` in fp32: of the window, or of the whole panorama with its margin for
    /// [`Operation::Decode`].
    pub(crate) latents: Tensor,
    /// Where the window begins in the panorama, by which it follows its text.
    pub(crate) column: i64,
    pub(crate) conditions: Rc<Conditions>,
    /// Index of the step in [`Conditions::steps`].
    pub(crate) step: usize,
    pub(crate) operation: Operation,
}

/// What a task asks for, with what its stage needs beyond the latents.
pub(crate) enum Operation {
    Denoise {
        window: usize,
    },
    Target {
        window: usize,
        /// The guided output of the window.
        output: Tensor,
    },
    Synchronise {
        window: usize,
        target: Rc<Features>,
    },
    Decode {
        /// How many columns of latents the other end adds on both sides.
        margin: i64,
        /// What is decoded already. It is taken when the task is computed; if that fails, the picture is decoded from
        /// the beginning.
        decoding: RefCell<Option<Decoding>>,
    },
}

/// The result of a task, for [`Panorama::put`](crate::Panorama::put).
pub enum Outcome {
    /// Of [`Stage::Denoise`].
    Output {
        /// Index of the window.
        window: usize,
        /// `[1, c, window, window]`
        output: Tensor,
    },
    /// Of [`Stage::Target`].
    Target(Features),
    /// Of [`Stage::Synchronise`].
    Gradient {
        /// Index of the window.
        window: usize,
        /// `[1, c, window, window]`
        gradient: Tensor,
    },
    /// Of [`Stage::Decode`], where there is more to do.
    Decoding(Decoding),
    /// Of the last [`Stage::Decode`].
    Picture(Picture),
    /// Of any stage: the numbers of a network are not finite, and the panorama cannot go on. All others are finite, but
    /// for outputs, of which [`Outcome::finite`] says it.
    OutOfRange(Network),
}

impl Outcome {
    /// Whether its numbers are finite, as a number on the device, so that nobody has to wait for it yet. `None` for
    /// what was looked at when it was computed.
    pub fn finite(&self) -> Option<Tensor> {
        match self {
            Self::Output { output, .. } => Some(output.isfinite().all()),
            Self::Gradient { .. } | Self::Target(_) | Self::Decoding(_) | Self::Picture(_) | Self::OutOfRange(_) => {
                None
            }
        }
    }
}

/// What all tasks of a panorama share.
pub(crate) struct Conditions {
    /// The texts of the guidance branches: the negative one and the prompt, or the only one with any influence.
    pub(crate) branches: Vec<Branch>,
    pub(crate) guidance: f64,
    pub(crate) time: TimeTable,
    pub(crate) steps: Vec<Step>,
}

/// The texts of a guidance branch, from left to right.
pub(crate) struct Branch {
    /// At least one, which is then the text of all windows.
    pub(crate) texts: Vec<Rc<TextKeys>>,
    pub(crate) layout: Layout,
}

impl Branch {
    /// What a window that begins at a column attends to.
    pub(crate) fn at(&self, column: i64) -> Mixture<'_> {
        let Nearest { first, second, share } = self.layout.texts_at(column as u32, self.texts.len());
        Mixture::new(&self.texts[first], &self.texts[second], share)
    }
}

impl Operation {
    pub(crate) fn stage(&self) -> Stage {
        match self {
            Self::Denoise { .. } => Stage::Denoise,
            Self::Target { .. } => Stage::Target,
            Self::Synchronise { .. } => Stage::Synchronise,
            Self::Decode { .. } => Stage::Decode,
        }
    }
}

impl Task {
    /// What is computed for it.
    pub fn stage(&self) -> Stage {
        self.operation.stage()
    }

    /// How many guidance branches the UNet computes for it. Only tasks with as many go in one batch.
    pub fn branches(&self) -> usize {
        self.conditions.branches.len()
    }

    /// Whether both may go in one batch.
    pub(crate) fn fits_beside(&self, other: &Self) -> bool {
        self.stage() == other.stage() && self.branches() == other.branches()
    }
}
