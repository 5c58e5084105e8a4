//! One panorama as a state machine that hands out work and takes results.
//!
//! A step goes through these phases; the first three only where the step synchronises and there is more than one window:
//!
//! 1. *anchor*: the UNet on the anchor window; its output is the anchor's own share of phase 4, too
//! 2. *target*: the picture the anchor is heading for, as perceptual features
//! 3. *synchronise*: every other window moves against the gradient of its distance to the target
//! 4. *denoise*: the UNet on every window that has no output yet; then all are stepped and fused
//!
//! After the last step the whole panorama is decoded.

use std::{collections::VecDeque, rc::Rc};

use sd2::{
    ddim::Step,
    lpips::Features,
    unet::{TextKeys, TimeTable},
};
use tch::Tensor;

use crate::{Picture, Settings, windows::Windows};

/// What is to be computed for a task. Only tasks of one kind go in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The guided output of the UNet for a window.
    Denoise,
    /// The perceptual features of the picture a window is heading for.
    Target,
    /// The gradient, with respect to a window, of its perceptual distance to the target.
    Synchronise,
    /// The picture of the whole panorama.
    Decode,
}

/// A piece of work of one panorama.
pub struct Task {
    /// The window, or 0 for the whole panorama.
    window: usize,
    /// `[1, c, h, w]` in fp32.
    pub(crate) latents: Tensor,
    pub(crate) conditions: Rc<Conditions>,
    /// Index of the step in [`Conditions::steps`].
    pub(crate) step: usize,
    /// For [`Kind::Target`], the guided output of the window.
    pub(crate) output: Option<Tensor>,
    /// For [`Kind::Synchronise`], what to synchronise with.
    pub(crate) target: Option<Rc<Features>>,
}

impl Task {
    #[cfg(test)]
    pub(crate) fn new(
        window: usize,
        latents: Tensor,
        conditions: Rc<Conditions>,
        step: usize,
        output: Option<Tensor>,
        target: Option<Rc<Features>>,
    ) -> Self {
        Self { window, latents, conditions, step, output, target }
    }

    /// What is computed on: `[1, c, h, w]` in fp32.
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// Index of the step, from 0.
    pub fn step(&self) -> usize {
        self.step
    }

    /// How many guidance branches the UNet computes for it. Only tasks with as many go in one batch.
    pub fn branches(&self) -> usize {
        self.conditions.branches.len()
    }
}

/// The result of a task.
pub enum Outcome {
    /// Of [`Kind::Denoise`]: `[1, c, window, window]`.
    Output(Tensor),
    /// Of [`Kind::Target`].
    Target(Rc<Features>),
    /// Of [`Kind::Synchronise`]: `[1, c, window, window]`.
    Gradient(Tensor),
    /// Of [`Kind::Decode`].
    Picture(Picture),
}

/// What all tasks of a panorama share.
pub(crate) struct Conditions {
    /// The texts of the guidance branches: the negative one and the prompt, or the only one with any influence.
    pub(crate) branches: Vec<Rc<TextKeys>>,
    pub(crate) guidance: f64,
    pub(crate) time: TimeTable,
    pub(crate) steps: Vec<Step>,
}

/// What was computed for a panorama, in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// UNet forwards, one for each window and guidance branch.
    pub unet_forwards: u64,
    /// UNet backwards, counted likewise.
    pub unet_backwards: u64,
    /// Decodes of single windows.
    pub window_decodes: u64,
    /// Backwards through such decodes.
    pub window_decode_backwards: u64,
    /// Forwards of the perceptual network.
    pub perceptual_forwards: u64,
    /// Backwards through it.
    pub perceptual_backwards: u64,
    /// Texts that went through the text encoder.
    pub text_encodes: u64,
}

/// How far a panorama is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps completed.
    pub step: u32,
    /// Steps in all.
    pub of: u32,
    /// Share of the work that is done, by cost, from 0 to 1.
    pub fraction: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Anchor,
    Target,
    Synchronise,
    Denoise,
    Decode,
    Done,
}

/// One job.
pub struct Panorama {
    conditions: Rc<Conditions>,
    settings: Settings,
    windows: Windows,
    /// `[1, c, height, width]` in fp32, as of the start of the step.
    latents: Tensor,
    step: usize,
    phase: Phase,
    /// Windows of this phase that are not handed out.
    waiting: VecDeque<usize>,
    /// Tasks that are handed out and have no result.
    outstanding: usize,
    /// The latents of each window in this step; the synchronised ones after phase 3.
    views: Vec<Tensor>,
    /// The guided output of each window in this step.
    outputs: Vec<Option<Tensor>>,
    target: Option<Rc<Features>>,
    work: Work,
    cost: Cost,
}

impl Panorama {
    pub(crate) fn new(
        settings: Settings,
        conditions: Conditions,
        windows: Windows,
        latents: Tensor,
        text_encodes: u64,
    ) -> Self {
        let cost = Cost::of(&settings, &conditions, windows.len(), &latents);
        let mut panorama = Self {
            conditions: Rc::new(conditions),
            settings,
            windows,
            latents,
            step: 0,
            phase: Phase::Done,
            waiting: VecDeque::new(),
            outstanding: 0,
            views: Vec::new(),
            outputs: Vec::new(),
            target: None,
            work: Work { text_encodes, ..Work::default() },
            cost,
        };
        panorama.begin_step();
        panorama
    }

    /// The kind of work that can be taken now; `None` while results are outstanding, and at the end.
    pub fn kind(&self) -> Option<Kind> {
        if self.waiting.is_empty() {
            return None;
        }
        match self.phase {
            Phase::Anchor | Phase::Denoise => Some(Kind::Denoise),
            Phase::Target => Some(Kind::Target),
            Phase::Synchronise => Some(Kind::Synchronise),
            Phase::Decode => Some(Kind::Decode),
            Phase::Done => None,
        }
    }

    /// Hands out up to `limit` tasks of the kind that [`Self::kind`] names.
    pub fn take(&mut self, limit: usize) -> Vec<Task> {
        let windows: Vec<usize> = self.waiting.drain(..limit.min(self.waiting.len())).collect();
        self.outstanding += windows.len();
        windows.into_iter().map(|window| self.task(window)).collect()
    }

    fn task(&self, window: usize) -> Task {
        let whole = self.phase == Phase::Decode;
        Task {
            window,
            latents: if whole { self.latents.shallow_clone() } else { self.views[window].shallow_clone() },
            conditions: Rc::clone(&self.conditions),
            step: self.step,
            output: match self.phase {
                Phase::Target => self.outputs[window].as_ref().map(Tensor::shallow_clone),
                _ => None,
            },
            target: self.target.clone(),
        }
    }

    /// Takes the result of a task of this panorama. The last one is the picture.
    ///
    /// # Panics
    /// If the result is of another kind than the task.
    pub fn put(&mut self, task: Task, outcome: Outcome) -> Option<Picture> {
        let branches = self.conditions.branches.len() as u64;
        match (self.phase, outcome) {
            (Phase::Anchor | Phase::Denoise, Outcome::Output(output)) => {
                self.work.unet_forwards += branches;
                self.cost.done += self.cost.denoise;
                self.outputs[task.window] = Some(output);
            }
            (Phase::Target, Outcome::Target(features)) => {
                self.work.window_decodes += 1;
                self.work.perceptual_forwards += 1;
                self.cost.done += self.cost.target;
                self.target = Some(features);
            }
            (Phase::Synchronise, Outcome::Gradient(gradient)) => {
                self.work.unet_forwards += branches;
                self.work.unet_backwards += branches;
                self.work.window_decodes += 1;
                self.work.window_decode_backwards += 1;
                self.work.perceptual_forwards += 1;
                self.work.perceptual_backwards += 1;
                self.cost.done += self.cost.synchronise;
                let weight =
                    self.settings.sync_weight(self.step).expect("only a step that synchronises asks for gradients");
                self.views[task.window] = task.latents - gradient * weight;
            }
            (Phase::Decode, Outcome::Picture(picture)) => {
                self.phase = Phase::Done;
                self.cost.done = self.cost.total;
                return Some(picture);
            }
            _ => panic!("a task's result is of another kind than the task"),
        }
        self.outstanding -= 1;
        if self.outstanding == 0 && self.waiting.is_empty() {
            self.next_phase();
        }
        None
    }

    fn begin_step(&mut self) {
        if self.step == self.conditions.steps.len() {
            self.views.clear();
            self.enter(Phase::Decode, [0].into());
            return;
        }
        let n = self.windows.len();
        self.views = (0..n).map(|i| self.windows.cut(&self.latents, i)).collect();
        self.outputs = (0..n).map(|_| None).collect();
        if n > 1 && self.settings.sync_weight(self.step).is_some() {
            self.enter(Phase::Anchor, [self.windows.anchor()].into());
        } else {
            self.enter(Phase::Denoise, (0..n).collect());
        }
    }

    fn next_phase(&mut self) {
        let anchor = self.windows.anchor();
        let others = || (0..self.windows.len()).filter(|&i| i != anchor).collect();
        match self.phase {
            Phase::Anchor => self.enter(Phase::Target, [anchor].into()),
            Phase::Target => self.enter(Phase::Synchronise, others()),
            Phase::Synchronise => {
                let others = others();
                self.target = None;
                self.enter(Phase::Denoise, others);
            }
            Phase::Denoise => {
                self.end_step();
                self.begin_step();
            }
            Phase::Decode | Phase::Done => {}
        }
    }

    fn enter(&mut self, phase: Phase, windows: VecDeque<usize>) {
        self.phase = phase;
        self.waiting = windows;
    }

    /// Steps every window and fuses them.
    fn end_step(&mut self) {
        let outputs: Vec<Tensor> =
            self.outputs.drain(..).map(|output| output.expect("every window was denoised")).collect();
        let next = self.conditions.steps[self.step].next(&Tensor::cat(&self.views, 0), &Tensor::cat(&outputs, 0));
        self.latents = self.windows.fuse(next.split(1, 0).iter());
        self.step += 1;
    }

    /// How many windows it has.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// How many guidance branches the UNet computes for each of its windows.
    pub fn branches(&self) -> usize {
        self.conditions.branches.len()
    }

    /// What a task of a kind costs, in billions of multiply-accumulates of Stable Diffusion 2.
    pub fn price(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Denoise => self.cost.denoise,
            Kind::Target => self.cost.target,
            Kind::Synchronise => self.cost.synchronise,
            Kind::Decode => self.cost.decode,
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            step: self.step as u32,
            of: self.conditions.steps.len() as u32,
            fraction: (self.cost.done / self.cost.total).min(1.0),
        }
    }

    /// The latents as of the last completed step, `[1, c, height, width]` in fp32.
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// What was computed so far.
    pub fn work(&self) -> Work {
        self.work
    }
}

/// What the tasks of a panorama cost, each, in all and so far. The unit is a billion multiply-accumulates of Stable
/// Diffusion 2; for other models the proportions are close enough to show progress by.
struct Cost {
    denoise: f64,
    target: f64,
    synchronise: f64,
    decode: f64,
    total: f64,
    done: f64,
}

impl Cost {
    const UNET: (f64, f64) = (402.0, 495.0);
    const DECODER: (f64, f64) = (1257.0, 1283.0);
    const PERCEPTUAL: (f64, f64) = (80.0, 80.0);

    fn of(settings: &Settings, conditions: &Conditions, windows: usize, latents: &Tensor) -> Self {
        let branches = conditions.branches.len() as f64;
        let denoise = branches * Self::UNET.0;
        let target = Self::DECODER.0 + Self::PERCEPTUAL.0;
        let synchronise = denoise + branches * Self::UNET.1 + target + Self::DECODER.1 + Self::PERCEPTUAL.1;
        let decode = Self::DECODER.0 * latents.numel() as f64 / (4.0 * 64.0 * 64.0);
        let steps = conditions.steps.len();
        let syncs = if windows > 1 { (0..steps).filter(|&i| settings.sync_weight(i).is_some()).count() } else { 0 };
        let others = (windows - 1) as f64;
        let total = (steps * windows) as f64 * denoise + syncs as f64 * (target + others * synchronise) + decode;
        Self { denoise, target, synchronise, decode, total, done: 0.0 }
    }
}
