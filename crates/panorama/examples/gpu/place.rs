//! Where and how it is computed: the device, dtypes, and libtorch's switches.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use libtorch::{Attention, Benchmark, Tf32};
use sd2::{Placement, Upsampling};
use serde_json::{Value, json};
use tch::{Cuda, Device, Kind};

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum DeviceName {
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Dtype {
    F32,
    Bf16,
    F16,
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    Transposed,
    Nearest,
    Four,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Kernels {
    /// libtorch's own choice.
    Auto,
    /// Without cuDNN's.
    Flash,
    /// With cuDNN's only.
    Cudnn,
}

/// What the product decides by itself, and more.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, default_value = "cuda")]
    pub(crate) device: DeviceName,
    /// Of text encoder and UNet.
    #[arg(long, default_value = "f16")]
    pub(crate) dtype: Dtype,
    /// Of decoder and perceptual network, if it is another than the product's choice.
    #[arg(long)]
    pictures: Option<Dtype>,
    /// Memory order of maps, if it is another than the product's choice for a GPU.
    #[arg(long)]
    channels_last: Option<bool>,
    #[arg(long, default_value = "transposed")]
    upsample: Way,
    /// Whether f32 is rounded to TF32 in convolutions and products.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    tf32: bool,
    /// Kernels of attention.
    #[arg(long, default_value = "flash")]
    pub(crate) attention: Kernels,
    /// Whether cuDNN measures its algorithms.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    benchmark: bool,
}

impl Dtype {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::F16 => Kind::Half,
        }
    }
}

/// `f32`, `bf16` or `f16`.
pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Half => "f16",
        Kind::BFloat16 => "bf16",
        _ => "f32",
    }
}

impl Options {
    /// Opens the device and sets the switches. The placement is that of a GPU, whatever the device.
    pub(crate) fn place(&self) -> Result<Placement> {
        let device = open(self.device)?;
        let product = Placement::of_gpu_on_cpu(self.dtype.kind());
        let picture_kind = self.pictures.map_or(product.picture_kind, Dtype::kind);
        let upsampling = match self.upsample {
            Way::Transposed => Upsampling::Transposed,
            Way::Nearest => Upsampling::Nearest,
            Way::Four => Upsampling::Four,
        };
        Tf32 { convolutions: self.tf32, products: self.tf32 }.set()?;
        set_attention(self.attention)?;
        Benchmark { on: self.benchmark, limit: 10 }.set()?;
        let channels_last = self.channels_last.unwrap_or(product.channels_last);
        Ok(Placement { device, picture_kind, channels_last, upsampling, ..product })
    }

    /// For a record.
    pub(crate) fn describe(&self, placement: &Placement) -> Value {
        json!({
            "device": if placement.device == Device::Cpu { "cpu" } else { "cuda" },
            "dtype": name(placement.kind),
            "pictures": name(placement.picture_kind),
            "channels_last": placement.channels_last,
            "upsample": format!("{:?}", placement.upsampling).to_lowercase(),
            "tf32": self.tf32,
            "attention": self.attention.to_possible_value().map(|value| value.get_name().to_owned()),
            "benchmark": self.benchmark,
        })
    }
}

/// Lets libtorch choose from some kernels of attention.
pub(crate) fn set_attention(kernels: Kernels) -> Result<()> {
    let (flash, cudnn) = match kernels {
        Kernels::Auto => (true, true),
        Kernels::Flash => (true, false),
        Kernels::Cudnn => (false, true),
    };
    Ok(Attention { flash, efficient: true, math: true, cudnn }.set()?)
}

/// The device, whose half of libtorch is opened as the worker does.
pub(crate) fn open(device: DeviceName) -> Result<Device> {
    match device {
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Cuda => {
            #[expect(unsafe_code, reason = "libtorch's own initialisers")]
            // SAFETY: opening a library runs its initialisers. This one is the other half of the libtorch that the
            // program is linked with, made to be loaded after it, and opened before libtorch is used.
            let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
            std::mem::forget(library.context("`libtorch_cuda.so` cannot be opened; use `--device cpu` without a GPU")?);
            if Cuda::device_count() == 0 {
                bail!("CUDA sees no device; check `nvidia-smi`, or use `--device cpu`");
            }
            Ok(Device::Cuda(0))
        }
    }
}

/// The most memory that the device had in use, in bytes: tensors on a GPU, the process on a CPU.
pub(crate) fn peak(device: Device) -> Result<u64> {
    if let Device::Cuda(n) = device {
        return Ok(libtorch::memory(n)?.max_reserved);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    Ok(peak.unwrap_or(0_u64) * 1024)
}
