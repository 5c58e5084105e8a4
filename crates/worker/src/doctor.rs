//! `syncdiffusion-worker doctor`: what this worker would compute with, as one line of JSON.

use std::fs;
use std::thread;

use sd2::Sd2;
use serde_json::{Value, json};
use tch::Cuda;

use crate::cuda;
use crate::device::{self, DeviceChoice, DtypeChoice};
use crate::memory;
use crate::model::ModelOptions;

/// The libtorch that `tch` is pinned for.
const LIBTORCH: &str = "2.11.0";

/// Reports what is there. What is missing is reported, too, and not a failure.
pub(crate) fn report(options: &ModelOptions) -> Value {
    let cuda = cuda::open();
    let count = if cuda.is_ok() { Cuda::device_count() } else { 0 };
    let why = match &cuda {
        Err(error) => Some(format!("{error:#}")),
        Ok(()) if count == 0 => {
            Some("the CUDA libraries are there, but they see no GPU; check `nvidia-smi`".to_owned())
        }
        Ok(()) => None,
    };
    let auto = device::place(DeviceChoice::Auto, DtypeChoice::Auto).ok();
    json!({
        "libtorch": LIBTORCH,
        "libtorch_path": loaded("libtorch_cpu.so"),
        "cuda": {
            "available": count > 0,
            "why": why,
            "devices": (0..count).map(|n| gpu_name(n as usize)).collect::<Vec<_>>(),
        },
        "cpu": {
            "threads": thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "features": features(),
        },
        "auto": auto.map(|place| json!({
            "device": device::name(place.device),
            "dtype": device::dtype_name(place.kind),
        })),
        "model": model(options),
        "memory": { "available": memory::available(tch::Device::Cpu) },
    })
}

/// Whether the model can be loaded: its configurations are read and the shapes of its tensors compared, as when it is
/// loaded.
fn model(options: &ModelOptions) -> Value {
    let checked = options.open().and_then(|bundle| Ok(Sd2::check(&bundle)?));
    match checked {
        Ok(geometry) => json!({ "window": geometry.window, "vae_factor": geometry.vae_factor }),
        Err(error) => json!({ "problem": format!("{error:#}") }),
    }
}

/// Where a library of this process was loaded from.
fn loaded(library: &str) -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(library))?;
    line.find('/').map(|at| line[at..].to_owned())
}

/// The name of a GPU where its driver reports it. The order is that of the bus, as CUDA's is with
/// `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
fn gpu_name(n: usize) -> String {
    let mut folders: Vec<_> = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten().collect();
    folders.sort_by_key(fs::DirEntry::file_name);
    let information = folders.get(n).and_then(|folder| fs::read_to_string(folder.path().join("information")).ok());
    let model = information.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("Model:")));
    model.map_or_else(|| format!("cuda:{n}"), |model| model.trim().to_owned())
}

/// The instruction sets of this processor, of those that matter here.
fn features() -> Vec<&'static str> {
    let wanted = ["avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16"];
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    wanted.into_iter().filter(|name| has(name)).collect()
}
