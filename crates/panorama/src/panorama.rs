//! One panorama as a state machine that returns tasks and takes their outcomes.
//!
//! A step goes through these phases; the first three only where the step synchronises and there is more than one
//! window:
//!
//! 1. *anchor*: the UNet on the anchor window; its output is the anchor's own share of phase 4, too
//! 2. *target*: the picture the anchor is heading for, as perceptual features
//! 3. *synchronise*: every other window moves against the gradient of its distance to the target
//! 4. *denoise*: the UNet on every window that has no output yet; then all are stepped and fused, or, by a scheduler
//!    with a memory, fused and stepped as one canvas
//!
//! If the target is a picture that was given, the first two phases fall away, and all windows are moved.
//!
//! With [`SyncMode::Canvas`] the third moves the panorama, by windows that are not those of phase 4, and what phase 1
//! computed is of use for the target only.
//!
//! After the last step the whole panorama is decoded, a large one in parts; if its ends meet, each with a margin of the
//! other.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::rc::Rc;

use geometry::{Prices, Tasks};
use sd2::lpips::Features;
use sd2::schedulers::Solver;
use sd2::vae::Decoding;
use tch::Tensor;

use crate::canvas::{Canvas, Parts};
use crate::kept::Kept;
use crate::picture::Picture;
use crate::settings::{Settings, SyncMode};
use crate::task::{Conditions, Operation, Outcome, Stage, Task};
use crate::windows::Windows;

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
    /// Pictures that went through the encoder of the VAE.
    pub picture_encodes: u64,
}

/// What a panorama begins with.
pub(crate) struct Beginning {
    pub(crate) conditions: Conditions,
    /// What steps the whole canvas; `None` where each window is stepped.
    pub(crate) solver: Option<Solver>,
    pub(crate) windows: Windows,
    /// `[1, c, height, width]` in fp32, as of the start of the first step.
    pub(crate) latents: Tensor,
    /// The first step; those before it are left out.
    pub(crate) step: usize,
    pub(crate) kept: Option<Kept>,
    /// The features of the picture that all windows are synchronised with, if it was given.
    pub(crate) target: Option<Rc<Features>>,
    /// What was computed already.
    pub(crate) work: Work,
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

/// How a picture is decoded. Each part costs as much as the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodePlan {
    /// In how many parts, between which other tasks can be computed.
    pub parts: u64,
    /// How many numbers of feature maps are kept between them, at most.
    pub kept: i64,
}

/// At once.
impl Default for DecodePlan {
    fn default() -> Self {
        Self { parts: 1, kept: 0 }
    }
}

/// What of a step is being computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Anchor,
    Target,
    Synchronise,
    Denoise,
    Decode,
}

/// One job.
pub struct Panorama {
    conditions: Rc<Conditions>,
    /// What steps the whole canvas; `None` where each window is stepped.
    solver: Option<Solver>,
    settings: Settings,
    windows: Windows,
    /// `[1, c, height, width]` in fp32, as of the start of the step.
    latents: Tensor,
    step: usize,
    /// The first step.
    first: usize,
    /// What of the panorama is a picture's.
    kept: Option<Kept>,
    /// The features of a given picture, which take the place of the anchor's.
    target: Option<Rc<Features>>,
    /// Step size of this step's synchronisation; 0.0 without one.
    step_size: f64,
    /// This step's synchronisation, if it is one of the canvas.
    canvas: Option<Canvas>,
    phase: Phase,
    /// Tasks of this phase that were not taken yet.
    waiting: VecDeque<Operation>,
    /// Tasks that were taken and have no outcome yet.
    outstanding: usize,
    /// The latents of each window in this step; the synchronised ones after phase 3.
    views: Vec<Tensor>,
    /// The guided output of each window in this step, as far as it is known.
    outputs: BTreeMap<usize, Tensor>,
    work: Work,
    prices: Prices,
    plan: DecodePlan,
    /// What all tasks cost, and those that are done.
    cost: u64,
    spent: u64,
}

impl Panorama {
    pub(crate) fn new(settings: Settings, beginning: Beginning) -> Self {
        let Beginning { conditions, mut solver, windows, latents, step, kept, target, work } = beginning;
        if let Some(solver) = &mut solver {
            solver.begin_at(step);
        }
        let decoded = windows.with_margin(&latents).numel();
        let prices = Prices::computed(conditions.branches.len() as u64, decoded as u64);
        let mut panorama = Self {
            conditions: Rc::new(conditions),
            solver,
            settings,
            windows,
            latents,
            step,
            first: step,
            kept,
            target,
            step_size: 0.0,
            canvas: None,
            phase: Phase::Denoise,
            waiting: VecDeque::new(),
            outstanding: 0,
            views: Vec::new(),
            outputs: BTreeMap::new(),
            work,
            prices,
            plan: DecodePlan::default(),
            cost: 0,
            spent: 0,
        };
        panorama.cost = prices.total(panorama.tasks());
        panorama.begin_step();
        panorama
    }

    /// All tasks.
    fn tasks(&self) -> Tasks {
        let (windows, steps) = (self.windows() as u64, self.conditions.steps.len());
        let mut tasks = Tasks::new(windows, (steps - self.first) as u64, 0);
        let anchor = u64::from(self.target.is_none());
        for step in (self.first..steps).filter(|&step| self.step_size(step) != 0.0) {
            tasks.target += anchor;
            match self.parts(step) {
                Some(parts) => {
                    tasks.synchronise += parts.len() as u64;
                    tasks.denoise += u64::from(parts.moves_anchor());
                }
                None => tasks.synchronise += windows - anchor,
            }
        }
        tasks
    }

    /// The stage of the tasks that can be taken now; `None` while outcomes are outstanding, and at the end.
    pub fn stage(&self) -> Option<Stage> {
        self.waiting.front().map(Operation::stage)
    }

    /// How many tasks can be taken now, all of that stage.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes up to `limit` tasks, all of the stage that [`Self::stage`] names.
    pub fn take(&mut self, limit: usize) -> Vec<Task> {
        let operations: Vec<Operation> = self.waiting.drain(..limit.min(self.waiting.len())).collect();
        self.outstanding += operations.len();
        operations.into_iter().map(|operation| self.task(operation)).collect()
    }

    fn task(&self, operation: Operation) -> Task {
        let (latents, column) = match (&operation, &self.canvas) {
            (Operation::Decode { .. }, _) => (self.windows.with_margin(&self.latents), 0),
            (Operation::Synchronise { window, .. }, Some(canvas)) => {
                (canvas.cut(&self.latents, *window), canvas.column(*window))
            }
            (
                Operation::Denoise { window }
                | Operation::Target { window, .. }
                | Operation::Synchronise { window, .. },
                _,
            ) => (self.views[*window].shallow_clone(), self.windows.position(*window).1),
        };
        Task { latents, column, conditions: Rc::clone(&self.conditions), step: self.step, operation }
    }

    /// Puts in the outcome of a task of this panorama. The last one is the picture.
    ///
    /// # Panics
    /// If it is [`Outcome::OutOfRange`], with which a panorama ends.
    pub fn put(&mut self, outcome: Outcome) -> Option<Picture> {
        let branches = self.branches() as u64;
        self.outstanding -= 1;
        match outcome {
            Outcome::Output { window, output } => {
                self.work.unet_forwards += branches;
                self.spent += self.prices.denoise;
                if self.phase == Phase::Anchor {
                    let target = Operation::Target { window, output: output.shallow_clone() };
                    self.enter(Phase::Target, [target]);
                    if self.canvas.as_ref().is_some_and(Canvas::moves_anchor) {
                        return None;
                    }
                }
                self.outputs.insert(window, output);
            }
            Outcome::Target(features) => {
                self.work.window_decodes += 1;
                self.work.perceptual_forwards += 1;
                self.spent += self.prices.target;
                self.synchronise(&Rc::new(features));
            }
            Outcome::Gradient { window, gradient } => {
                self.work.unet_forwards += branches;
                self.work.unet_backwards += branches;
                self.work.window_decodes += 1;
                self.work.window_decode_backwards += 1;
                self.work.perceptual_forwards += 1;
                self.work.perceptual_backwards += 1;
                self.spent += self.prices.synchronise;
                if let Some(canvas) = &mut self.canvas {
                    canvas.put(window, gradient);
                } else {
                    let view = &mut self.views[window];
                    *view = &*view - gradient * self.step_size;
                }
            }
            Outcome::Decoding(decoding) => {
                self.spent += self.price(Stage::Decode);
                self.decode(Some(decoding));
                return None;
            }
            Outcome::Picture(picture) => {
                self.spent = self.cost;
                return Some(picture);
            }
            Outcome::OutOfRange(network) => panic!("the numbers of the {network} are not finite"),
        }
        if self.outstanding == 0 && self.waiting.is_empty() {
            self.end_phase();
        }
        None
    }

    /// Goes on when the last outcome of a phase of several tasks is in.
    fn end_phase(&mut self) {
        match self.phase {
            Phase::Synchronise => {
                if let Some(canvas) = self.canvas.take() {
                    self.latents = canvas.moved(&self.latents, self.step_size);
                    self.cut_views();
                }
                let missing = (0..self.windows.len()).filter(|window| !self.outputs.contains_key(window));
                let missing: Vec<Operation> = missing.map(|window| Operation::Denoise { window }).collect();
                self.enter(Phase::Denoise, missing);
            }
            Phase::Denoise => {
                self.end_step();
                self.begin_step();
            }
            Phase::Anchor | Phase::Target | Phase::Decode => {}
        }
    }

    fn begin_step(&mut self) {
        if let Some(kept) = &self.kept {
            self.latents = kept.put(self.latents.shallow_clone(), self.step, &self.conditions.steps);
        }
        if self.step == self.conditions.steps.len() {
            self.views.clear();
            self.decode(None);
            return;
        }
        let n = self.windows.len();
        self.cut_views();
        self.step_size = self.step_size(self.step);
        self.canvas = self.parts(self.step).map(|parts| Canvas::new(&self.windows, parts));
        if self.step_size == 0.0 {
            self.enter(Phase::Denoise, (0..n).map(|window| Operation::Denoise { window }));
        } else if let Some(target) = self.target.clone() {
            self.synchronise(&target);
        } else {
            self.enter(Phase::Anchor, [Operation::Denoise { window: self.windows.anchor() }]);
        }
    }

    /// Moves windows towards a target, on the canvas if this step does so.
    fn synchronise(&mut self, target: &Rc<Features>) {
        let windows: Vec<usize> = match &self.canvas {
            Some(canvas) => (0..canvas.len()).collect(),
            None if self.target.is_some() => (0..self.windows.len()).collect(),
            None => self.others().collect(),
        };
        let operations = windows.into_iter().map(|window| Operation::Synchronise { window, target: Rc::clone(target) });
        self.enter(Phase::Synchronise, operations);
    }

    /// Decodes the picture from where it is.
    fn decode(&mut self, decoding: Option<Decoding>) {
        let decoding = RefCell::new(decoding);
        self.enter(Phase::Decode, [Operation::Decode { margin: self.windows.margin(), decoding }]);
    }

    fn enter(&mut self, phase: Phase, operations: impl IntoIterator<Item = Operation>) {
        self.phase = phase;
        self.waiting.extend(operations);
    }

    fn cut_views(&mut self) {
        self.views = (0..self.windows.len()).map(|i| self.windows.cut(&self.latents, i)).collect();
    }

    /// Steps every window and fuses them, or the other way round.
    fn end_step(&mut self) {
        let outputs: Vec<Tensor> = mem::take(&mut self.outputs).into_values().collect();
        let (views, outputs) = (Tensor::cat(&self.views, 0), Tensor::cat(&outputs, 0));
        let step = &self.conditions.steps[self.step];
        self.latents = match &mut self.solver {
            None => self.windows.fuse(&step.next(&views, &outputs)),
            Some(solver) => {
                let latents = self.windows.fuse(&views);
                let original = step.original(&latents, &self.windows.fuse(&outputs));
                solver.next(&latents, original)
            }
        };
        self.step += 1;
    }

    /// All windows but the anchor.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let anchor = self.windows.anchor();
        (0..self.windows.len()).filter(move |&window| window != anchor)
    }

    /// The step size of the synchronisation in step `i`; a single window has nothing to be synchronised with but a
    /// picture that was given, and on the canvas there may be no other part than the anchor.
    fn step_size(&self, i: usize) -> f64 {
        let size = self.settings.step_size(i);
        let moves = size != 0.0
            && (self.windows.len() > 1 || self.target.is_some())
            && (self.settings.sync_mode == SyncMode::Windows || self.parts(i).is_some());
        if moves { size } else { 0.0 }
    }

    /// Where step `i` synchronises, if it does so on the canvas and moves anything.
    fn parts(&self, i: usize) -> Option<Parts> {
        let moves = self.settings.sync_mode == SyncMode::Canvas && self.settings.step_size(i) != 0.0;
        let (seed, sync) = (self.settings.seed, i as u64 / self.settings.sync_freq);
        match &self.target {
            _ if !moves => None,
            Some(_) => Some(Parts::all(&self.windows, seed, sync)),
            None => Parts::new(&self.windows, seed, sync),
        }
    }

    /// Number of its windows.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// How many guidance branches the UNet computes for each of its windows.
    pub fn branches(&self) -> usize {
        self.conditions.branches.len()
    }

    /// What a task of a stage costs, in the unit of [`Prices::computed`].
    pub fn price(&self, stage: Stage) -> u64 {
        match stage {
            Stage::Denoise => self.prices.denoise,
            Stage::Target => self.prices.target,
            Stage::Synchronise => self.prices.synchronise,
            Stage::Decode => self.prices.decode / self.plan.parts,
        }
    }

    /// Says how its picture will be decoded.
    pub fn follow(&mut self, plan: DecodePlan) {
        self.plan = plan;
    }

    /// How its picture is decoded.
    pub fn plan(&self) -> DecodePlan {
        self.plan
    }

    /// Whether a part of its picture is decoded and the rest is not.
    pub fn is_half_decoded(&self) -> bool {
        let begun = |operation: &Operation| match operation {
            Operation::Decode { decoding, .. } => decoding.borrow().is_some(),
            _ => false,
        };
        self.waiting.front().is_some_and(begun)
    }

    /// Height and width of the latents that are decoded, with their margins.
    pub(crate) fn decoded_size(&self) -> [i64; 2] {
        let size = self.latents.size();
        [size[2], size[3] + 2 * self.windows.margin()]
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            step: (self.step - self.first) as u32,
            of: (self.conditions.steps.len() - self.first) as u32,
            fraction: (self.spent as f64 / self.cost as f64).min(1.0),
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
