//! The networks at work on batches of tasks.

mod compute;
mod shared;
mod sources;
mod threads;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::iter::zip;
use std::rc::Rc;

use geometry::Layout;
use sd2::lpips::Features;
use sd2::schedulers::Schedule;
use sd2::unet::TextKeys;
use sd2::vae::{Decoded, Decoding, Encoder};
use sd2::{Checkpointing, Sd2};
use tch::{Device, Tensor};

pub use self::sources::without_encoder;

use self::shared::{Comparison, Networks, Sample};
use self::sources::{Start, Viewer, influential_texts};
use self::threads::Threads;
use crate::evaluation::{Figures, figures};
use crate::limits::Limits;
use crate::panorama::{Beginning, DecodePlan, Panorama, Work};
use crate::picture::Picture;
use crate::range::{self, InF32, Network};
use crate::settings::{Invalid, Settings};
use crate::task::{Branch, Conditions, Operation, Outcome, Task};
use crate::windows::Windows;

/// How many texts are remembered: a few for each job, and the empty negative prompt of all the others.
const MAX_TEXTS: usize = 32;

/// How many windows a core computes at once: more do not fit its cache.
const PART: usize = 2;

/// The networks of one model, and what is remembered between jobs.
pub struct Engine {
    sd2: Sd2,
    /// Keys and values of texts, the latest last.
    texts: VecDeque<(String, Rc<TextKeys>)>,
    threads: Threads,
    in_f32: InF32,
    /// Loaded when a panorama first begins from a picture.
    encoder: OnceCell<Encoder>,
}

impl Engine {
    /// An engine of a loaded model. On a CPU it computes on `threads` threads; a GPU needs one.
    pub fn new(sd2: Sd2, threads: usize) -> Self {
        let threads = Threads::new(if sd2.placement.device == Device::Cpu { threads } else { 1 });
        Self { sd2, texts: VecDeque::new(), threads, in_f32: InF32::default(), encoder: OnceCell::new() }
    }

    /// How many windows are computed side by side.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// The model.
    pub fn model(&self) -> &Sd2 {
        &self.sd2
    }

    /// Begins a panorama: encodes its texts and draws its starting noise.
    ///
    /// # Errors
    /// If the settings do not fit the model.
    pub fn begin(&mut self, settings: &Settings) -> Result<Panorama, Invalid> {
        self.begin_from(settings, |shape| noise(settings.seed, shape))
    }

    /// Begins a panorama from other noise than its seed's, given its shape: `[1, c, height, width]` in fp32.
    ///
    /// # Errors
    /// If the settings do not fit the model.
    pub fn begin_from(
        &mut self,
        settings: &Settings,
        noise: impl FnOnce([i64; 4]) -> Tensor,
    ) -> Result<Panorama, Invalid> {
        let _no_grad = tch::no_grad_guard();
        let geometry = self.sd2.geometry();
        let placed = settings.check(geometry)?;
        let layout = geometry.layout((settings.width, settings.height), settings.stride, settings.ends());
        let mut work = Work::default();
        let branches = influential_texts(settings).into_iter().map(|texts| {
            let texts = texts.iter().map(|text| self.text(text, &mut work.text_encodes)).collect();
            Branch { texts, layout }
        });
        let branches = branches.collect();
        let Schedule { steps, solver } =
            self.sd2.schedule(settings.scheduler, settings.num_inference_steps).map_err(unusable)?;
        let timesteps: Vec<i64> = steps.iter().map(|step| step.timestep).collect();
        let conditions = Conditions {
            branches,
            guidance: settings.guidance_scale,
            time: self.sd2.unet.time_table(&timesteps),
            steps,
        };
        let device = self.sd2.placement.device;
        let shape = [1, self.sd2.unet.channels, layout.height.into(), layout.width.into()];
        let noise = noise(shape).to_device(device);
        let windows = Windows::new(layout, settings.blend, device);
        let viewer = Viewer { sd2: &self.sd2, threads: &self.threads, in_f32: &self.in_f32, encoder: &self.encoder };
        let target = viewer.target(settings, &mut work)?;
        let Start { latents, step, kept } = viewer.start(settings, placed, &conditions.steps, noise, &mut work)?;
        let beginning = Beginning { conditions, solver, windows, latents, step, kept, target, work };
        Ok(Panorama::new(settings.clone(), beginning))
    }

    /// Computes tasks of any panoramas and returns their outcomes, in order. Tasks in a row that may share a batch, by
    /// stage and number of guidance branches, do.
    pub fn compute(&self, tasks: &[Task], limits: Limits) -> Vec<Outcome> {
        tasks.chunk_by(Task::fits_beside).flat_map(|batch| self.batch(batch, limits)).collect()
    }

    /// Computes a task as often as a batch of some width would, for nothing: the first batch of a width takes a GPU
    /// seconds.
    pub fn rehearse(&self, task: &Task, width: usize, limits: Limits) {
        let networks = Networks::of(&self.sd2);
        let samples = || (0..width).map(|_| Sample::of(task));
        match &task.operation {
            Operation::Denoise { .. } => drop(networks.output(&samples().collect::<Vec<_>>())),
            Operation::Synchronise { target, .. } => {
                let comparisons: Vec<_> = samples().map(|sample| Comparison { sample, target }).collect();
                drop(networks.gradient(&comparisons, limits.checkpointing));
            }
            Operation::Target { .. } | Operation::Decode { .. } => {}
        }
    }

    /// Computes tasks of one stage and one number of guidance branches.
    fn batch(&self, tasks: &[Task], limits: Limits) -> Vec<Outcome> {
        let networks = Networks::of(&self.sd2);
        let (mut outputs, mut samples) = (Vec::new(), Vec::new());
        let (mut gradients, mut comparisons) = (Vec::new(), Vec::new());
        let mut outcomes = Vec::with_capacity(tasks.len());
        // Where a batch is too narrow for its width, its last task is computed again, for nothing.
        let width = tasks.first().map_or(0, |task| limits.padded(task.stage(), tasks.len()));
        let again = tasks.last().into_iter().cycle().take(width - tasks.len());
        for (i, task) in tasks.iter().chain(again).enumerate() {
            match &task.operation {
                Operation::Denoise { window } => {
                    outputs.extend((i < tasks.len()).then_some(*window));
                    samples.push(Sample::of(task));
                }
                Operation::Synchronise { window, target } => {
                    gradients.extend((i < tasks.len()).then_some(*window));
                    comparisons.push(Comparison { sample: Sample::of(task), target });
                }
                Operation::Target { output, .. } => {
                    outcomes.push(self.alone(|| self.target(task, output).map(Outcome::Target)));
                }
                Operation::Decode { margin, decoding } => {
                    outcomes.push(self.alone(|| self.decode(&task.latents, *margin, decoding.take(), limits)));
                }
            }
        }
        let computed = self.side_by_side(&samples, |samples| networks.output(samples));
        outcomes.extend(zip(outputs, computed).map(|(window, output)| Outcome::Output { window, output }));
        let checkpointing = limits.checkpointing;
        let computed = self.side_by_side(&comparisons, |comparisons| networks.gradient(comparisons, checkpointing));
        let finite = range::are_finite(&computed);
        let computed = zip(zip(comparisons, computed), finite).map(|((comparison, gradient), finite)| {
            if finite { Ok(gradient) } else { self.gradient_again(&comparison, checkpointing) }
        });
        outcomes.extend(zip(gradients, computed).map(|(window, gradient)| {
            gradient.map_or_else(Outcome::OutOfRange, |gradient| Outcome::Gradient { window, gradient })
        }));
        outcomes
    }

    /// The perceptual features of the picture that a window with a guided output is heading for.
    fn target(&self, task: &Task, output: &Tensor) -> Result<Features, Network> {
        self.in_f32.features(&self.sd2, &Sample::of(task).step.original(&task.latents, output))
    }

    /// A gradient whose numbers were not finite: once more, in f32 where the decoder or the perceptual network is to
    /// blame.
    fn gradient_again(&self, comparison: &Comparison, checkpointing: Checkpointing) -> Result<Tensor, Network> {
        self.threads.together(|| {
            self.in_f32.in_range(&self.sd2, |decoder, lpips| {
                Networks { decoder, lpips, ..Networks::of(&self.sd2) }.gradient_or_fault(comparison, checkpointing)
            })
        })
    }

    /// Decodes the next part of a panorama whose latents have `margin` columns too many on both sides.
    fn decode(
        &self,
        latents: &Tensor,
        margin: i64,
        begun: Option<Decoding>,
        limits: Limits,
    ) -> Result<Outcome, Network> {
        let decoder = &self.sd2.decoder;
        let mut decoding = begun.unwrap_or_else(|| decoder.begin(latents, limits.strip));
        loop {
            match decoder.advance(decoding) {
                Decoded::Part(part) if part.numbers() > limits.kept => decoding = part,
                Decoded::Part(part) => return Ok(Outcome::Decoding(part)),
                Decoded::Picture(picture) => {
                    let picture = self.in_f32.picture(&self.sd2, latents, picture, limits.strip)?;
                    let margin = margin * i64::from(self.sd2.geometry().vae_factor);
                    let picture = picture.narrow(3, margin, picture.size()[3] - 2 * margin);
                    return Ok(Outcome::Picture(Picture::of(&picture)));
                }
            }
        }
    }

    /// What a picture comes to whose windows were at the places of a layout.
    pub fn figures(&self, layout: Layout, picture: &Picture) -> Figures {
        self.threads.together(|| figures(&self.sd2.lpips, self.sd2.geometry(), Some(layout), picture))
    }

    /// How the picture of a panorama is decoded.
    pub fn plan(&self, panorama: &Panorama, limits: Limits) -> DecodePlan {
        let (decoder, size) = (&self.sd2.decoder, panorama.decoded_size());
        let kept = decoder.keeps(size, limits.strip);
        if kept > limits.kept {
            return DecodePlan::default();
        }
        DecodePlan { parts: decoder.parts(size, limits.strip) as u64, kept }
    }

    /// Computes one task with all threads.
    fn alone(&self, compute: impl FnOnce() -> Result<Outcome, Network>) -> Outcome {
        let _no_grad = tch::no_grad_guard();
        self.threads.together(compute).unwrap_or_else(Outcome::OutOfRange)
    }

    /// Computes windows on all threads, and returns the results `[1, c, h, w]` of each.
    fn side_by_side<T: Sync>(&self, windows: &[T], compute: impl Fn(&[T]) -> Tensor + Sync) -> Vec<Tensor> {
        let share = windows.len().div_ceil(self.threads.count());
        let part = if self.threads.count() == 1 { share } else { share.min(PART) };
        self.threads.map(windows, part, compute).iter().flat_map(|results| results.split(1, 0)).collect()
    }

    /// The keys and values of a text, computed if they are not remembered.
    fn text(&mut self, text: &str, encodes: &mut u64) -> Rc<TextKeys> {
        let at = self.texts.iter().position(|(known, _)| known == text);
        let remembered = at.and_then(|at| self.texts.remove(at)).unwrap_or_else(|| {
            *encodes += 1;
            (text.to_owned(), Rc::new(self.encode(text)))
        });
        let keys = Rc::clone(&remembered.1);
        self.texts.push_back(remembered);
        if self.texts.len() > MAX_TEXTS {
            self.texts.pop_front();
        }
        keys
    }

    /// Forgets all texts.
    pub fn forget_texts(&mut self) {
        self.texts.clear();
    }

    fn encode(&self, text: &str) -> TextKeys {
        let ids = self.sd2.tokenizer.encode(text);
        self.threads.together(|| self.sd2.unet.text_keys(&range::embedding(&self.sd2, &ids)))
    }
}

/// Why a model cannot be used with a scheduler.
pub fn unusable(error: &sd2::Error) -> Invalid {
    Invalid { field: "scheduler", message: format!("needs another model, or must be `ddim`: {error}") }
}

/// The starting noise of a seed, on the CPU whatever the device, so that a seed is the same picture everywhere.
fn noise(seed: u64, shape: [i64; 4]) -> Tensor {
    libtorch::randn(seed, &shape).unwrap_or_else(|error| panic!("the noise of a panorama: {error}"))
}

#[cfg(test)]
mod tests;
