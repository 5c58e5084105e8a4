//! How much memory the worker uses and may use.

use std::str::FromStr;

use tch::Device;

use crate::cuda;

/// For libtorch, too: its `malloc` is this one. glibc returns large blocks to the system at once, and clearing fresh
/// pages takes two fifths of the demo model's time; set to keep them, it lets all threads wait for one lock. The server
/// sets how long mimalloc keeps freed memory, by `MIMALLOC_PURGE_DELAY`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Largest resident memory of this process so far, in bytes; 0 where the system does not report it.
pub(crate) fn peak() -> u64 {
    status("VmHWM:")
}

/// Memory of the device that this process uses, in bytes. libtorch keeps the memory of a GPU that it has once had.
pub(crate) fn used(device: Device) -> u64 {
    match device {
        Device::Cuda(n) => on_gpu(n).reserved,
        _ => status("VmRSS:"),
    }
}

/// The maximum of [`used`] so far.
pub(crate) fn max_used(device: Device) -> u64 {
    match device {
        Device::Cuda(n) => on_gpu(n).max_reserved,
        _ => peak(),
    }
}

/// Runs something, and returns how much more memory than before it took at most, in bytes. On a CPU that is only known
/// of what takes the most so far, `before` being what was in use before all of it.
pub(crate) fn taken_by<T>(device: Device, before: u64, run: impl FnOnce() -> T) -> (T, u64) {
    let Device::Cuda(n) = device else {
        let result = run();
        return (result, max_used(device).saturating_sub(before));
    };
    let allocated = on_gpu(n).allocated;
    let maxima = libtorch::reset_peaks(n);
    let result = run();
    let taken = on_gpu(n).max_allocated.saturating_sub(allocated);
    // Were the maxima those of all the time, they would say nothing about this.
    (result, if maxima.is_ok() { taken } else { 0 })
}

/// What libtorch has of a GPU; nothing where CUDA does not answer.
fn on_gpu(n: usize) -> libtorch::Memory {
    libtorch::memory(n).unwrap_or_default()
}

/// Memory of the device that this process could have, in bytes, beside what it uses.
pub(crate) fn available(device: Device) -> u64 {
    match device {
        // What libtorch keeps and does not use, it can use again.
        Device::Cuda(n) => {
            let libtorch::Memory { allocated, reserved, .. } = on_gpu(n);
            cuda::memory(n).map_or(0, |(free, _)| free) + reserved.saturating_sub(allocated)
        }
        _ => kibibytes(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable:"),
    }
}

fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kibibytes(&text, key)
}

fn kibibytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// A number of bytes, as `800MiB`, `6GiB`, `6GB` or `6000000000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget(pub(crate) u64);

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: f64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "k" | "kib" => 1024.0,
            "m" | "mib" => 1024.0 * 1024.0,
            "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(format!("`{text}` is not an amount of memory; write it as `6GiB`")),
        };
        match number.parse::<f64>() {
            Ok(number) if number * unit >= 1.0 => Ok(Self((number * unit) as u64)),
            _ => Err(format!("`{text}` is not an amount of memory; write it as `6GiB`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read() {
        for (text, bytes) in
            [("6GiB", 6 << 30), ("1.5g", 3 << 29), ("800 MiB", 800 << 20), ("2GB", 2_000_000_000), ("77", 77)]
        {
            assert_eq!(text.parse(), Ok(Budget(bytes)), "{text}");
        }
        for text in ["", "GiB", "0", "-1GiB", "6 bananas"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_system_is_read() {
        // Other tests allocate meanwhile, so the numbers are not compared with each other.
        assert!(peak() > 0 && used(Device::Cpu) > 0 && available(Device::Cpu) > 0);
        // No CUDA is open here.
        assert_eq!((cuda::memory(0), used(Device::Cuda(0))), (None, 0));
    }
}
