//! Time and memory of decoding a picture of any size:
//! `cargo run --release -p sd2 --example decode -- MODEL [WIDTH HEIGHT] [f32|bf16]`
//!
//! Loads the decoder of a bundle, decodes noise, and prints the seconds and the peak of resident memory.

use std::env;
use std::error::Error;
use std::fs;
use std::time::Instant;

use sd2::vae::Decoder;
use sd2::{Bundle, Placement};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let model = args.first().ok_or("no model given; pass the folder of a bundle, such as `models/demo`")?;
    let side = |i: usize| args.get(i).map_or(Ok(2048), |text| text.parse::<i64>());
    let (width, height) = (side(1)?, side(2)?);
    let kind = if args.iter().any(|arg| arg == "bf16") { Kind::BFloat16 } else { Kind::Float };

    let decoder = Decoder::load(&Bundle::open(model)?, Placement::new(Device::Cpu, kind))?;
    let size = [1, decoder.channels, height / decoder.factor, width / decoder.factor];
    let latents = Tensor::randn(size, (Kind::Float, Device::Cpu));
    let before = peak();
    let start = Instant::now();
    let picture = decoder.large_pictures(&latents, Decoder::STRIP);
    println!(
        "{width}x{height} in {kind:?}: {:.1} s, {:.2} GiB at most, {before:.2} GiB before; mean {:.3}",
        start.elapsed().as_secs_f64(),
        peak(),
        picture.mean(Kind::Float).double_value(&[]),
    );
    Ok(())
}

/// Peak resident memory of this process so far, in GiB.
fn peak() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1_048_576.0
}
