//! What threads share while they compute windows side by side: the networks, and the tensors of tasks.
//!
//! `Tensor` is not `Sync`, because it can be written to through a shared reference. So the structs here list exactly
//! what threads read, and each says why nobody writes to it meanwhile. Nothing else of the engine or of a task, their
//! reference counts least of all, can be reached from the closures that threads run.

use std::panic::RefUnwindSafe;

use sd2::Sd2;
use sd2::ddim::Step;
use sd2::lpips::{Features, Lpips};
use sd2::unet::{Mixture, TextKeys, TimeTable, UNet};
use sd2::vae::Decoder;
use tch::Tensor;

use crate::task::Task;

/// The networks that compute windows.
pub(crate) struct Networks<'a> {
    pub(crate) unet: &'a UNet,
    pub(crate) decoder: &'a Decoder,
    pub(crate) lpips: &'a Lpips,
}

/// What the UNet takes of a task.
pub(crate) struct Sample<'a> {
    /// `[1, c, h, w]` in fp32.
    pub(crate) latents: &'a Tensor,
    /// The text of each guidance branch.
    pub(crate) texts: Vec<Mixture<'a>>,
    pub(crate) guidance: f64,
    pub(crate) time: &'a TimeTable,
    /// The row of the time table.
    pub(crate) row: i64,
    pub(crate) step: &'a Step,
}

/// What a gradient takes of a task.
pub(crate) struct Comparison<'a> {
    pub(crate) sample: Sample<'a>,
    pub(crate) target: &'a Features,
}

impl<'a> Networks<'a> {
    pub(crate) fn of(sd2: &'a Sd2) -> Self {
        Self { unet: &sd2.unet, decoder: &sd2.decoder, lpips: &sd2.lpips }
    }
}

impl<'a> Sample<'a> {
    pub(crate) fn of(task: &'a Task) -> Self {
        let conditions = &*task.conditions;
        Self {
            latents: &task.latents,
            texts: conditions.branches.iter().map(|branch| branch.at(task.column)).collect(),
            guidance: conditions.guidance,
            time: &conditions.time,
            row: task.step as i64,
            step: &conditions.steps[task.step],
        }
    }
}

/// Does not compile for a type that is changed through a shared reference by other means than a tensor's: `Rc` is not
/// `Send`, `Cell` and `RefCell` are not `RefUnwindSafe`.
const fn shares_tensors_only<T: Send + RefUnwindSafe>() {}

const _: () = {
    shares_tensors_only::<UNet>();
    shares_tensors_only::<Decoder>();
    shares_tensors_only::<Lpips>();
    shares_tensors_only::<TextKeys>();
    shares_tensors_only::<TimeTable>();
    shares_tensors_only::<Step>();
    shares_tensors_only::<Features>();
};

#[expect(unsafe_code, reason = "weights are only read")]
// SAFETY: the networks hold tensors and plain values, nothing else that could change (`shares_tensors_only`). Their
// tensors are weights, which are written to while a network loads and only read from then on, by forward and backward
// passes alike; libtorch allows any number of threads to read a tensor.
unsafe impl Sync for Networks<'_> {}

#[expect(unsafe_code, reason = "the tensors of a task are only read")]
// SAFETY: latents, keys and values of texts, and rows of the time table are tensors that the networks read and copy.
// This crate never writes in place to a tensor of a task or of the panorama behind it: new latents are new tensors. All
// else is plain (`shares_tensors_only`), and no `Rc` is among the fields.
unsafe impl Sync for Sample<'_> {}

#[expect(unsafe_code, reason = "the features of a target are only read")]
// SAFETY: a sample is `Sync`, as argued above. Features are tensors that were computed before the threads begin, and
// that the perceptual network only reads.
unsafe impl Sync for Comparison<'_> {}
