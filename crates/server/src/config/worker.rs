//! Flags for which worker to start, on what.

use std::ffi::OsString;
use std::iter;
use std::path::PathBuf;

use clap::Args;
use prediction::worker::Program;

use super::environment;
use super::loading::Loading;
use super::models::Models;
use super::words::{device, dtype};
use crate::units::positive_bytes;

/// Variables that a worker is started with, where they are not set.
const ENVIRONMENT: [(&str, &str); 4] = [
    // How long threads of libtorch wait for each other by spinning before they sleep. Left alone they spin for
    // milliseconds, and use the processor that another thread or process waits for.
    ("GOMP_SPINCOUNT", "5000"),
    // Milliseconds that the allocator keeps freed memory: the next window needs as much again.
    ("MIMALLOC_PURGE_DELAY", "5000"),
    // GPUs of compute capability 9 and 10: libtorch prefers cuDNN's attention there, which plans for half a second
    // whenever it meets a new shape. FlashAttention plans nothing.
    ("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1"),
    // Batches of many widths would otherwise fragment the memory of a GPU.
    ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
];

/// The fetched model that the hosted one is.
const HOSTED: &str = "sd2";

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Worker")]
pub(crate) struct WorkerArgs {
    /// The model: `demo`, the name of a fetched one (`weights fetch sd2`), a folder in the layout of diffusers with
    /// `perceptual/` in it (`weights perceptual FOLDER` adds it), or a checkpoint in one `.safetensors` file
    #[arg(long, env = "SYNCDIFFUSION_MODEL", default_value = "demo")]
    pub(crate) model: String,
    /// `auto`, `cpu`, `cuda` or `cuda:N`; several, separated by commas, start a worker each
    #[arg(long, env = "SYNCDIFFUSION_DEVICE", default_value = "auto", value_delimiter = ',', value_parser = device)]
    pub(crate) device: Vec<String>,
    /// `auto`, `f32`, `bf16` or `f16`
    #[arg(long, env = "SYNCDIFFUSION_DTYPE", default_value = "auto", value_parser = dtype)]
    pub(crate) dtype: String,
    /// Memory that a worker may use at most, such as `20GiB`
    #[arg(long, env = "SYNCDIFFUSION_MEMORY_BUDGET", value_parser = positive_bytes)]
    pub(crate) memory_budget: Option<u64>,
    /// The worker's executable, if it is not beside this one
    #[arg(long, env = "SYNCDIFFUSION_WORKER")]
    pub(crate) worker: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) loading: Loading,
    /// Whether the model is the fetched one whose original tokenizes as it did in 2023
    #[arg(skip)]
    hosted: bool,
    #[command(flatten)]
    pub(crate) models: Models,
}

impl WorkerArgs {
    /// Replaces the name of a fetched model by its folder.
    ///
    /// # Errors
    /// If there is no such model; the message says what to do.
    pub(crate) fn resolve(&mut self) -> Result<(), weights::Error> {
        let resolved = self.models.home().resolve(&self.model)?;
        self.hosted = self.model == HOSTED && resolved != self.model;
        self.model = resolved;
        Ok(())
    }

    /// What a worker is started with about the model, besides its name.
    pub(crate) fn model_arguments(&self) -> Vec<String> {
        self.loading.arguments(&self.models.home(), self.hosted)
    }

    /// How to start the workers: `each` of them for every device.
    pub(crate) fn programs(&self, each: usize) -> Vec<Program> {
        let budget = self.memory_budget.map(|bytes| ["--memory-budget".to_owned(), bytes.to_string()]);
        let more: Vec<String> = budget.into_iter().flatten().chain(self.model_arguments()).collect();
        let environment = defaults(environment::is_set);
        let program = |device: &String| {
            let program = Program::new(self.worker.clone(), &self.model, device, &self.dtype, &more);
            Program { environment: environment.clone(), ..program }
        };
        self.device.iter().flat_map(|device| iter::repeat_n(program(device), each.max(1))).collect()
    }
}

/// What of [`ENVIRONMENT`] the operator has not set.
fn defaults(is_set: impl Fn(&str) -> bool) -> Vec<(OsString, OsString)> {
    let unset = ENVIRONMENT.into_iter().filter(|(name, _)| !is_set(name));
    unset.map(|(name, value)| (name.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_the_operator_wins() {
        let names = |set: &[&str]| -> Vec<OsString> {
            defaults(|name| set.contains(&name)).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&[]).len(), ENVIRONMENT.len());
        let left = names(&["TORCH_CUDNN_SDPA_DEPRIORITIZED", "GOMP_SPINCOUNT"]);
        assert_eq!(left, ["MIMALLOC_PURGE_DELAY", "PYTORCH_CUDA_ALLOC_CONF"]);
    }
}
