//! The networks at work on batches of tasks.

use std::{
    collections::VecDeque,
    rc::Rc,
    sync::{Mutex, PoisonError},
};

use sd2::{
    Checkpointing, Sd2,
    ddim::Step,
    lpips::Features,
    unet::{Text, TextKeys, Time},
};
use tch::{Device, Kind as Dtype, Tensor};

use crate::{
    Invalid, Settings,
    panorama::{Conditions, Kind, Outcome, Panorama, Task},
    threads::Threads,
    windows::Windows,
};

/// How many texts are remembered: a few for each job at hand, and the empty negative prompt of all the others.
const REMEMBERED_TEXTS: usize = 32;

/// How many windows a core computes at once: more do not fit its cache.
const PART: usize = 2;

/// The networks of one model, and what is remembered between jobs.
pub struct Engine {
    sd2: Sd2,
    /// Keys and values of texts, the latest last.
    texts: VecDeque<(String, Rc<TextKeys>)>,
    threads: Threads,
    /// How many tasks go in a batch.
    pub limits: Limits,
}

/// How many tasks go in a batch, by their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Windows whose UNet output is computed at once.
    pub denoise: usize,
    /// Windows whose gradient is computed at once.
    pub synchronise: usize,
    /// Computes more twice so that a gradient takes less memory.
    pub thrifty: bool,
}

/// One window at a time, which fits everywhere.
impl Default for Limits {
    fn default() -> Self {
        Self { denoise: 1, synchronise: 1, thrifty: false }
    }
}

impl Limits {
    /// The limit of a kind.
    pub fn of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Denoise => self.denoise,
            Kind::Synchronise => self.synchronise,
            Kind::Target | Kind::Decode => 1,
        }
    }
}

/// A finished picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `3 * width * height` bytes, row by row from the top.
    pub rgb: Vec<u8>,
}

impl Engine {
    /// An engine of a loaded model. On a CPU it computes on `threads` threads; a GPU needs one.
    pub fn new(sd2: Sd2, limits: Limits, threads: usize) -> Self {
        let threads = Threads::new(if sd2.placement.device == Device::Cpu { threads } else { 1 });
        Self { sd2, texts: VecDeque::new(), threads, limits }
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
        let _no_grad = tch::no_grad_guard();
        let geometry = self.sd2.geometry();
        settings.check(geometry)?;
        let mut encodes = 0;
        let branches = influential_texts(settings).into_iter().map(|text| self.text(text, &mut encodes)).collect();
        let steps = self.sd2.ddim.schedule(settings.num_inference_steps);
        let timesteps: Vec<i64> = steps.iter().map(|step| step.timestep).collect();
        let conditions = Conditions {
            branches,
            guidance: settings.guidance_scale,
            time: self.sd2.unet.time_table(&timesteps),
            steps,
        };
        let (height, width) = (settings.height / geometry.factor, settings.width / geometry.factor);
        let device = self.sd2.placement.device;
        let windows = Windows::new(height, width, geometry.window, settings.stride, settings.loop_closure, device);
        let noise = noise(settings.seed, [1, self.sd2.unet.channels, height, width]).to_device(device);
        Ok(Panorama::new(settings.clone(), conditions, windows, noise, encodes))
    }

    /// Computes a batch: tasks of one kind and with one number of guidance branches, of any panoramas.
    /// Gives their outcomes, in order.
    pub fn compute(&self, kind: Kind, tasks: &[Task]) -> Vec<Outcome> {
        let side_by_side = |compute: &dyn Fn(&[Task]) -> Tensor| -> Vec<Tensor> {
            let share = tasks.len().div_ceil(self.threads.count());
            let part = if self.threads.count() == 1 { share } else { share.min(PART) };
            self.threads.map(tasks, part, compute).iter().flat_map(|results| results.split(1, 0)).collect()
        };
        match kind {
            Kind::Denoise => side_by_side(&|tasks| {
                let _no_grad = tch::no_grad_guard();
                let latents = stack(tasks);
                guide(tasks, self.sd2.unet.forward(&latents, &times(tasks), &texts(tasks)))
            })
            .into_iter()
            .map(Outcome::Output)
            .collect(),
            Kind::Synchronise => {
                side_by_side(&|tasks| self.gradient(tasks)).into_iter().map(Outcome::Gradient).collect()
            }
            Kind::Target => {
                let _no_grad = tch::no_grad_guard();
                self.threads.together(|| tasks.iter().map(|task| Outcome::Target(Rc::new(self.target(task)))).collect())
            }
            Kind::Decode => {
                let _no_grad = tch::no_grad_guard();
                self.threads
                    .together(|| tasks.iter().map(|task| Outcome::Picture(self.picture(&task.latents))).collect())
            }
        }
    }

    /// For each task the gradient of its perceptual distance to its target, `[n, c, h, w]`: back through the perceptual
    /// network, the decoder, DDIM, guidance and the UNet.
    fn gradient(&self, tasks: &[Task]) -> Tensor {
        let (latents, text) = (stack(tasks), texts(tasks));
        let checkpointing = if self.limits.thrifty { Checkpointing::On } else { Checkpointing::Off };
        let (prediction, unet_tape) = self.sd2.unet.forward_recorded(&latents, &times(tasks), &text, checkpointing);
        // From the latents and the prediction to the original samples it is a few multiplications.
        let (latents, prediction) = (latents.set_requires_grad(true), prediction.set_requires_grad(true));
        let originals = originals(tasks, &latents, &guide(tasks, prediction.shallow_clone()));
        let (pictures, decoder_tape) = self.sd2.decoder.pictures_recorded(&originals.detach(), checkpointing);
        let gradient = self.sd2.decoder.pictures_backward(&self.distance_gradient(tasks, &pictures), decoder_tape);
        // The samples depend on the latents directly, and through the prediction.
        let product = originals.flatten(0, -1).dot(&gradient.flatten(0, -1));
        let gradients = Tensor::run_backward(&[product], &[&latents, &prediction], false, false);
        &gradients[0] + self.sd2.unet.backward(&gradients[1], &text, unet_tape)
    }

    /// The gradient of pictures in 0..1 with respect to their distances to the targets of the tasks.
    fn distance_gradient(&self, tasks: &[Task], pictures: &Tensor) -> Tensor {
        // The original's network takes -1..1.
        let pictures = pictures * 2.0 - 1.0;
        let targets: Vec<&Rc<Features>> =
            tasks.iter().map(|task| task.target.as_ref().expect("there is a target to synchronise with")).collect();
        let gradient = if targets.iter().all(|target| Rc::ptr_eq(target, targets[0])) {
            self.sd2.lpips.gradient(&pictures, targets[0])
        } else {
            let targets: Vec<&Features> = targets.into_iter().map(AsRef::as_ref).collect();
            self.sd2.lpips.gradient(&pictures, &Features::cat(&targets))
        };
        gradient * 2.0
    }

    /// The perceptual features of the picture that a window with an output is heading for.
    fn target(&self, task: &Task) -> Features {
        let output = task.output.as_ref().expect("a target is of a window with an output");
        self.features(&step(task).original(&task.latents, output))
    }

    /// Perceptual features of the pictures of latents. The picture is clamped before, as in the original: what is
    /// clipped has no gradient.
    fn features(&self, latents: &Tensor) -> Features {
        self.sd2.lpips.features(&(self.sd2.decoder.pictures(latents) * 2.0 - 1.0))
    }

    fn picture(&self, latents: &Tensor) -> Picture {
        let image = self.sd2.decoder.large_pictures(latents);
        // Truncated and not rounded, as in the original.
        let bytes =
            (image.squeeze_dim(0).permute([1, 2, 0]) * 255.0).to_kind(Dtype::Uint8).to_device(Device::Cpu).contiguous();
        let (height, width, channels) = bytes.size3().expect("a picture is [height, width, 3]");
        let mut rgb = vec![0; (height * width * channels) as usize];
        let numel = rgb.len();
        bytes.view([-1]).copy_data_u8(&mut rgb, numel);
        Picture { width: width as u32, height: height as u32, rgb }
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
        if self.texts.len() > REMEMBERED_TEXTS {
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
        self.threads.together(|| self.sd2.unet.text_keys(&self.sd2.text_encoder.forward(&ids)))
    }
}

/// The starting noise of a seed, on the CPU whatever the device, so that a seed is the same picture everywhere.
fn noise(seed: u64, shape: [i64; 4]) -> Tensor {
    /// libtorch has one generator for the process: nobody else may draw between seed and noise.
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    // The bits of the seed are what counts.
    tch::manual_seed(seed as i64);
    Tensor::randn(shape, (Dtype::Float, Device::Cpu))
}

/// The texts whose branches have any influence on the guided output: `negative + scale * (positive - negative)`.
fn influential_texts(settings: &Settings) -> Vec<&str> {
    let (negative, positive) = (settings.negative_prompt.as_str(), settings.prompt.as_str());
    match settings.guidance_scale {
        0.0 => vec![negative],
        1.0 => vec![positive],
        _ if negative == positive => vec![positive],
        _ => vec![negative, positive],
    }
}

/// The times of a batch of tasks.
fn times(tasks: &[Task]) -> Time<'_> {
    Time::of_batch(&tasks.iter().map(|task| (&task.conditions.time, task.step as i64)).collect::<Vec<_>>())
}

/// The texts of a batch of tasks.
fn texts(tasks: &[Task]) -> Text {
    let of_branch =
        |branch: usize| -> Vec<&TextKeys> { tasks.iter().map(|task| &*task.conditions.branches[branch]).collect() };
    Text::of_batch(&(0..tasks[0].branches()).map(of_branch).collect::<Vec<_>>())
}

/// Classifier-free guidance: from the predictions of all branches to the output.
fn guide(tasks: &[Task], prediction: Tensor) -> Tensor {
    if tasks[0].branches() == 1 {
        return prediction;
    }
    let [negative, positive] =
        [0, 1].map(|branch| prediction.narrow(0, branch * tasks.len() as i64, tasks.len() as i64));
    let difference = positive - &negative;
    negative + scale(difference, &tasks.iter().map(|task| task.conditions.guidance).collect::<Vec<_>>())
}

fn stack(tasks: &[Task]) -> Tensor {
    Tensor::cat(&tasks.iter().map(|task| &task.latents).collect::<Vec<_>>(), 0)
}

fn step(task: &Task) -> &Step {
    &task.conditions.steps[task.step]
}

/// The original samples that windows are heading for, each by the step of its own task.
fn originals(tasks: &[Task], latents: &Tensor, output: &Tensor) -> Tensor {
    if tasks.iter().all(|task| step(task) == step(&tasks[0])) {
        return step(&tasks[0]).original(latents, output);
    }
    let parts = std::iter::zip(tasks, std::iter::zip(latents.split(1, 0), output.split(1, 0)));
    Tensor::cat(&parts.map(|(task, (latents, output))| step(task).original(&latents, &output)).collect::<Vec<_>>(), 0)
}

/// Multiplies each of `n` samples by its factor.
fn scale(samples: Tensor, factors: &[f64]) -> Tensor {
    if factors.iter().all(|factor| factor == &factors[0]) {
        return samples * factors[0];
    }
    let column = Tensor::from_slice(factors).to_kind(samples.kind()).to_device(samples.device());
    samples * column.view([-1, 1, 1, 1])
}

#[cfg(test)]
mod tests;
