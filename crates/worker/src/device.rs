//! Where to compute, and in what dtype.

use std::iter;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use libtorch::Tf32;
use sd2::Placement;
use tch::{Cuda, Device, Kind, Tensor};

use crate::cuda;

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum DeviceChoice {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("`{text}` is not a device; use `auto`, `cpu`, `cuda` or `cuda:N`")),
        }
    }
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum DtypeChoice {
    Auto,
    Of(Kind),
}

impl FromStr for DtypeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::Of(Kind::Float)),
            "bf16" => Ok(Self::Of(Kind::BFloat16)),
            "f16" => Ok(Self::Of(Kind::Half)),
            _ => Err(format!("`{text}` is not a dtype; use `auto`, `f32`, `bf16` or `f16`")),
        }
    }
}

/// Decides where to compute. Opens CUDA, which must happen before anything else asks libtorch about it.
pub(crate) fn place(device: DeviceChoice, dtype: DtypeChoice) -> anyhow::Result<Placement> {
    let device = match device {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Cuda(n) => {
            cuda::open().with_context(|| format!("`cuda:{n}` is asked for, but this worker cannot use CUDA"))?;
            let count = Cuda::device_count();
            if count <= n as i64 {
                bail!(
                    "`cuda:{n}` is asked for, but CUDA sees {count} devices; check `nvidia-smi` and \
                     CUDA_VISIBLE_DEVICES, or use `--device cpu`"
                );
            }
            Device::Cuda(n)
        }
        DeviceChoice::Auto => match cuda::open() {
            Ok(()) if Cuda::device_count() > 0 => Device::Cuda(0),
            Ok(()) => Device::Cpu,
            Err(error) => {
                tracing::debug!("CUDA is not available: {error:#}");
                Device::Cpu
            }
        },
    };
    let kind = match (dtype, device) {
        (DtypeChoice::Of(kind), _) => kind,
        (DtypeChoice::Auto, Device::Cuda(_)) => Kind::Half,
        (DtypeChoice::Auto, _) => {
            if bf16_is_faster() {
                Kind::BFloat16
            } else {
                Kind::Float
            }
        }
    };
    let placement = Placement::new(device, kind);
    set_precision(placement)?;
    Ok(placement)
}

/// On a GPU, f32 means f32 if it is asked for: no TF32. Beside networks in 16 bit, whatever is in f32 may have it.
fn set_precision(placement: Placement) -> anyhow::Result<()> {
    if placement.device != Device::Cpu && placement.kind == Kind::Float {
        Tf32::OFF.set()?;
    }
    Ok(())
}

/// Whether products are faster in bf16 than in f32. That a processor has instructions for them is not enough: those of
/// AMX are faster, but AVX512-BF16 alone takes twice the time of f32 on some processors and half of it on others.
fn bf16_is_faster() -> bool {
    if !cpu_multiplies_bf16() {
        return false;
    }
    // On one thread and in turn, the shortest of many: other work on the machine must not decide.
    tch::set_num_threads(1);
    let matrices = [Kind::BFloat16, Kind::Float].map(|kind| Tensor::ones([512, 512], (kind, Device::Cpu)));
    let mut shortest = [Duration::MAX; 2];
    for _ in 0..20 {
        for (matrix, shortest) in iter::zip(&matrices, &mut shortest) {
            let start = Instant::now();
            let _ = matrix.matmul(matrix);
            *shortest = start.elapsed().min(*shortest);
        }
    }
    let [bf16, f32] = shortest;
    tracing::debug!(?bf16, ?f32, "a product of two matrices");
    // The ratios in question are two and a half.
    bf16 < f32
}

/// Whether the processor has instructions for bf16 rather than an emulation.
fn cpu_multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // Every processor with AMX has it, too.
        std::arch::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// `cpu` or `cuda:N`.
pub(crate) fn name(device: Device) -> String {
    match device {
        Device::Cuda(n) => format!("cuda:{n}"),
        _ => "cpu".to_owned(),
    }
}

/// `f32`, `bf16` or `f16`.
pub(crate) fn dtype_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Half => "f16",
        Kind::BFloat16 => "bf16",
        _ => "f32",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_on_a_gpu_is_no_tf32() {
        let before = Tf32::get().unwrap();
        for placement in [
            Placement::new(Device::Cpu, Kind::Float),
            Placement::new(Device::Cuda(0), Kind::Half),
            Placement::new(Device::Cuda(0), Kind::BFloat16),
        ] {
            set_precision(placement).unwrap();
            assert_eq!(Tf32::get(), Ok(before), "{placement:?}");
        }
        assert!(before.convolutions, "there is something to turn off");
        set_precision(Placement::new(Device::Cuda(0), Kind::Float)).unwrap();
        assert_eq!(Tf32::get(), Ok(Tf32::OFF));
        before.set().unwrap();
    }
}
