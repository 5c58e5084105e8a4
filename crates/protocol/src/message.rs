//! The messages between the server and a worker.

use serde::{Deserialize, Serialize};

use crate::{Input, Scheduler};

/// From the server to a worker. A worker whose stdin ends stops at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// Make a panorama. Answered by any number of `progress` and `log`, then one of `done`, `failed`, `canceled`. Its
    /// frame carries the pixels of `pictures`, one after the other: `3 * width * height` bytes of RGB each, row by row
    /// from the top.
    Run {
        /// Name of the job in all its events; chosen by the server, unique among the jobs the worker holds.
        job: String,
        /// What to make.
        input: Box<Input>,
        /// The pictures that the input names.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pictures: Vec<Given>,
    },
    /// Stop a job. Answered by `canceled`, or by whatever ended the job before; an unknown job is ignored.
    Cancel {
        /// The job to stop.
        job: String,
    },
    /// Show how far a job is. Answered by `preview` if the worker can: if it has begun the job, and has finished a
    /// picture before or knows the model.
    Preview {
        /// The job to show.
        job: String,
    },
    /// Evaluate a picture. Its frame carries `3 * width * height` bytes of RGB, row by row from the top. Only for a
    /// worker that was started to evaluate; answered by `evaluated` or `failed`.
    Evaluate {
        /// Name of the picture in the answer.
        job: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Where its windows were, if that is known.
        windows: Option<Windows>,
    },
    /// Finish all jobs, then exit with status 0.
    Shutdown,
}

/// A picture that an input names, whose pixels the frame of the command carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The input: `anchor_image` or `image`.
    pub field: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// From a worker to the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The configuration of the model was read and its weights are about to be loaded. Always first, and soon.
    Loading {
        /// The model that is being loaded.
        model: Model,
    },
    /// The model is loaded and warmed up; jobs are accepted.
    Ready {
        /// The model that was loaded.
        model: Model,
        /// Seconds from the start of the process to this event.
        load_seconds: f64,
        /// Peak memory of its device: resident memory on a CPU, all used memory of a GPU.
        peak_memory_bytes: u64,
        /// The number of jobs that the worker advances at once; it queues the others.
        jobs: u32,
        /// The schedulers that the scheduler file of the model rules out, and why, with what would work.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unusable: Vec<(Scheduler, String)>,
        /// Why pictures cannot become part of its panoramas, if its VAE has no encoder.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        no_encoder: Option<String>,
    },
    /// The model cannot be loaded; the worker exits with a status other than 0.
    LoadFailed {
        /// What is wrong, and how to fix it.
        error: String,
    },
    /// A part of a job is done. Sent after each batch of windows, so several times a step.
    Progress {
        /// The job.
        job: String,
        /// Denoising steps completed, from 0 to `of`.
        step: u32,
        /// Denoising steps of the job.
        of: u32,
        /// Seconds since work on the job began.
        seconds: f64,
        /// Share of the job's work that is done, from 0 to 1, by cost and not by step.
        fraction: f64,
    },
    /// A line for the log of a job, without a line break.
    Log {
        /// The job.
        job: String,
        /// The line.
        line: String,
    },
    /// How far a job is, in small: a pixel for each latent. Its frame carries `3 * width * height` bytes of RGB, row by
    /// row from the top.
    Preview {
        /// The job.
        job: String,
        /// Denoising steps completed.
        step: u32,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// One of several pictures of a job, as its frame of `done` would carry it alone. All come before `done`, which has
    /// no bytes then.
    Picture {
        /// The job.
        job: String,
        /// Its number, from 0: that of its seed after the first one.
        n: u32,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The picture. Its frame carries `3 * width * height` bytes of RGB, row by row from the top.
    Done {
        /// The job.
        job: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Seconds of sampling and decoding since work on the job began.
        seconds: f64,
        /// The work that was done for it.
        work: Work,
        /// Peak memory of its device: resident memory on a CPU, all used memory of a GPU.
        peak_memory_bytes: u64,
        /// What each of its pictures comes to, if its input asks for that.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        figures: Vec<Figures>,
    },
    /// The job ended without a picture.
    Failed {
        /// The job.
        job: String,
        /// What went wrong.
        error: String,
        /// The device cannot recover (a sticky CUDA error): the worker exits after this event.
        fatal: bool,
    },
    /// The job was stopped by a `cancel`.
    Canceled {
        /// The job.
        job: String,
    },
    /// A batch of windows was computed, of one job or several; for the metrics of the service.
    Batch {
        /// What was computed.
        stage: Stage,
        /// The number of windows.
        windows: u32,
        /// The maximum number of windows in a batch of this stage.
        limit: u32,
        /// Seconds that it took.
        seconds: f64,
    },
    /// The perceptual network is loaded, and pictures are evaluated. First, and the only one, of a worker that was
    /// started to evaluate.
    Evaluator {
        /// The network.
        net: Net,
        /// Side of a window of its model, in latents.
        window: u32,
        /// Pixels per latent, along each axis.
        vae_factor: u32,
    },
    /// What a picture comes to.
    Evaluated {
        /// Its name.
        job: String,
        /// Its figures.
        figures: Figures,
    },
    /// A command could not be understood. The worker continues with the next line.
    Malformed {
        /// What is wrong with it.
        error: String,
    },
}

/// What is computed for a batch of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The output of the UNet, for a step.
    Denoise,
    /// The gradient of the perceptual distance.
    Synchronise,
    /// The picture of the anchor, with which the others are compared.
    Target,
    /// The picture.
    Decode,
}

impl Stage {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Denoise => "denoise",
            Self::Synchronise => "synchronise",
            Self::Target => "target",
            Self::Decode => "decode",
        }
    }
}

/// The model of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// `demo`, or the path it was loaded from.
    pub name: String,
    /// Hash of its configuration and weights, in lower-case hexadecimal: two models with one version are the same.
    pub version: String,
    /// Side of a window, in latents.
    pub window: u32,
    /// Pixels per latent, along each axis.
    pub vae_factor: u32,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// `f32`, `bf16` or `f16`: the dtype of the weights and of the arithmetic between norms.
    pub dtype: String,
}

/// Where the windows of a picture were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Distance between neighbouring windows, in latents.
    pub stride: u32,
    /// Whether windows wrapped from the right edge to the left one.
    pub loop_closure: bool,
    /// Whether they went all around.
    #[serde(default)]
    pub seamless: bool,
}

/// The perceptual network that compared the parts of a picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// The model that it belongs to: `demo`, or the path it was loaded from.
    pub model: String,
    /// The channels of its five stages.
    pub channels: Vec<u32>,
    /// Hash of its configuration and weights, in lower-case hexadecimal.
    pub version: String,
}

/// What a picture comes to; a figure is `None` where the picture has nothing that it could be of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The kink where the right edge meets the left one, as a multiple of the mean kink on the grid of latents.
    pub seam: Option<f64>,
    /// The mean kink at the left and right borders of windows, likewise.
    pub borders: Option<f64>,
    /// The mean kink at the upper and lower borders of windows, likewise.
    pub row_borders: Option<f64>,
    /// The mean perceptual distance of all pairs of squares of 512 pixels.
    pub intra_lpips: Option<f64>,
}

/// The work that was done for a job. All but the encodes count samples: a batch of 26 counts 26.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Forward passes of the UNet, one for each window and branch of guidance.
    pub unet_forwards: u64,
    /// Backward passes of the UNet, counted likewise.
    pub unet_backwards: u64,
    /// Windows that were decoded; the final picture is not counted.
    pub window_decodes: u64,
    /// Backward passes through the decoder.
    pub window_decode_backwards: u64,
    /// Forward passes of the perceptual network.
    pub perceptual_forwards: u64,
    /// Backward passes through it.
    pub perceptual_backwards: u64,
    /// Texts that were encoded.
    pub text_encodes: u64,
    /// Pictures that were encoded by the VAE; written only where there are any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub picture_encodes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
