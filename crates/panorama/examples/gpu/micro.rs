//! Single operations in the shapes of Stable Diffusion 2: what the rates of a device are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use libtorch::{Mark, Tf32};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::place::{self, DeviceName, Kernels};
use crate::record::Records;

/// How long an operation is repeated.
const SECONDS: f64 = 0.1;

/// The most repetitions.
const REPEATS: usize = 50;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, default_value = "cuda")]
    device: DeviceName,
    /// Divide sides and batches, to try it on a CPU.
    #[arg(long)]
    tiny: bool,
}

struct Micro<'a> {
    device: Device,
    tiny: bool,
    records: &'a Records,
}

/// One operation.
struct Case<'a> {
    what: String,
    dtype: &'a str,
    layout: &'a str,
    /// Multiplications and additions, two for each product; 0 where bytes are what counts.
    flops: f64,
    bytes: f64,
}

pub(crate) fn run(options: &Options, records: &Records) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let micro = Micro { device: place::open(options.device)?, tiny: options.tiny, records };
    micro.copies()?;
    micro.products()?;
    micro.convolutions()?;
    micro.upsamplings()?;
    micro.norms()?;
    micro.attentions()
}

impl Micro<'_> {
    fn side(&self, side: i64) -> i64 {
        if self.tiny { (side / 8).max(2) } else { side }
    }

    fn random(&self, shape: &[i64], kind: Kind) -> Tensor {
        Tensor::randn(shape, (Kind::Float, self.device)).to_kind(kind)
    }

    /// Records an operation's first call, which may plan or compile, and the mean of the later ones.
    fn time(&self, case: &Case, run: impl Fn() -> Tensor) -> Result<()> {
        let measured = catch_unwind(AssertUnwindSafe(|| -> Result<(f64, f64)> {
            Mark::new(self.device)?.wait()?;
            let started = Instant::now();
            drop(run());
            Mark::new(self.device)?.wait()?;
            let first = started.elapsed().as_secs_f64();
            let started = Instant::now();
            drop(run());
            Mark::new(self.device)?.wait()?;
            // On a CPU it is only to be seen that it works.
            let seconds = if self.tiny { 0.0 } else { SECONDS };
            let repeats = ((seconds / started.elapsed().as_secs_f64().max(1e-6)) as usize).clamp(1, REPEATS);
            let from = Mark::new(self.device)?;
            for _ in 0..repeats {
                drop(run());
            }
            Ok((first, Mark::new(self.device)?.seconds_since(&from)? / repeats as f64))
        }));
        let base = json!({ "record": "micro", "what": case.what, "dtype": case.dtype, "layout": case.layout });
        let mut record = base;
        match measured {
            Ok(Ok((first, seconds))) => {
                record["first_ms"] = json!(first * 1e3);
                record["ms"] = json!(seconds * 1e3);
                record["tflops"] = json!((case.flops > 0.0).then(|| case.flops / seconds / 1e12));
                record["tb_per_s"] = json!((case.bytes > 0.0).then(|| case.bytes / seconds / 1e12));
            }
            Ok(Err(error)) => record["error"] = json!(error.to_string()),
            // The panic printed its message.
            Err(_) => record["error"] = json!("libtorch failed"),
        }
        self.records.add(&record)
    }

    fn copies(&self) -> Result<()> {
        let side = self.side(16384);
        let x = self.random(&[side, side], Kind::Half);
        let bytes = 4.0 * (side * side) as f64;
        self.time(&Case { what: "copy".to_owned(), dtype: "f16", layout: "flat", flops: 0.0, bytes }, || x.copy())
    }

    /// Of square matrices, and of the wide rows of a transformer.
    fn products(&self) -> Result<()> {
        for (what, rows, inputs, outputs) in
            [("product 8192", 8192, 8192, 8192), ("linear 4096x26 320 to 2560", 4096 * 26, 320, 2560)]
        {
            let [rows, inputs, outputs] = [rows, inputs, outputs].map(|side| self.side(side));
            for (dtype, kind) in [("f16", Kind::Half), ("bf16", Kind::BFloat16), ("f32", Kind::Float)] {
                let (a, b) = (self.random(&[rows, inputs], kind), self.random(&[outputs, inputs], kind));
                let flops = 2.0 * (rows * inputs * outputs) as f64;
                let case = Case { what: what.to_owned(), dtype, layout: "flat", flops, bytes: 0.0 };
                self.time(&case, || a.linear(&b, None::<&Tensor>))?;
            }
        }
        Ok(())
    }

    /// 3x3, of UNet, decoder and perceptual network.
    fn convolutions(&self) -> Result<()> {
        for (batch, inputs, outputs, side) in [
            (26, 320, 320, 64),
            (26, 640, 640, 32),
            (26, 1280, 1280, 16),
            (26, 2560, 1280, 16),
            (12, 512, 512, 64),
            (12, 256, 256, 256),
            (6, 128, 128, 512),
            (6, 64, 64, 512),
        ] {
            let [batch, inputs, outputs, side] = [batch, inputs, outputs, side].map(|side| self.side(side));
            for (dtype, kind, tf32) in [
                ("f16", Kind::Half, false),
                ("bf16", Kind::BFloat16, false),
                ("tf32", Kind::Float, true),
                ("f32", Kind::Float, false),
            ] {
                Tf32 { convolutions: tf32, products: false }.set()?;
                for layout in ["nchw", "channels-last"] {
                    let ordered = |x: Tensor| if layout == "nchw" { x } else { channels_last(&x) };
                    let x = ordered(self.random(&[batch, inputs, side, side], kind));
                    let gradient = ordered(self.random(&[batch, outputs, side, side], kind));
                    let weight = ordered(self.random(&[outputs, inputs, 3, 3], kind));
                    let flops = 18.0 * (batch * inputs * outputs * side * side) as f64;
                    let case = |way: &str| Case {
                        what: format!("convolution {way} {batch}x{inputs} to {outputs} at {side}x{side}"),
                        dtype,
                        layout,
                        flops,
                        bytes: 0.0,
                    };
                    let none = None::<&Tensor>;
                    self.time(&case("forward"), || x.conv2d(&weight, none, [1], [1], [1], 1))?;
                    let backward = || gradient.conv_transpose2d(&weight, none, [1], [1], [0], 1, [1]);
                    // In f32 it is only decoder and perceptual network that may go this way.
                    if kind == Kind::Half {
                        self.time(&case("backward"), backward)?;
                    }
                }
            }
            Tf32::OFF.set()?;
        }
        Ok(())
    }

    /// The three ways from a map to twice its side.
    fn upsamplings(&self) -> Result<()> {
        for (batch, channels, side) in [(26, 1280, 16), (26, 640, 32), (12, 512, 64), (6, 256, 256)] {
            let [batch, channels, side] = [batch, channels, side].map(|side| self.side(side));
            for layout in ["nchw", "channels-last"] {
                let ordered = |x: Tensor| if layout == "nchw" { x } else { channels_last(&x) };
                let kernel = |side| ordered(self.random(&[channels, channels, side, side], Kind::Half));
                let (four, three, two) = (kernel(4), kernel(3), kernel(2));
                let x = ordered(self.random(&[batch, channels, side, side], Kind::Half));
                let none = None::<&Tensor>;
                let case = |way: &str| Case {
                    what: format!("upsampling {way} {batch}x{channels} from {side}x{side}"),
                    dtype: "f16",
                    layout,
                    flops: 32.0 * (batch * channels * channels * side * side) as f64,
                    bytes: 0.0,
                };
                self.time(&case("transposed"), || x.conv_transpose2d(&four, none, [2], [1], [0], 1, [1]))?;
                self.time(&case("nearest"), || {
                    x.upsample_nearest2d([2 * side, 2 * side], None, None).conv2d(&three, none, [1], [1], [1], 1)
                })?;
                // Without the interleaving.
                self.time(&case("four"), || {
                    let padded = x.constant_pad_nd([1, 1, 1, 1]);
                    let parts = [[0, 0], [0, 1], [1, 0], [1, 1]].map(|[row, column]| {
                        let part = padded.narrow(2, row, side + 1).narrow(3, column, side + 1);
                        part.conv2d(&two, none, [1], [0], [1], 1)
                    });
                    let [last, ..] = parts;
                    last
                })?;
            }
        }
        Ok(())
    }

    fn norms(&self) -> Result<()> {
        for (batch, channels, side) in [(26, 320, 64), (6, 128, 512)] {
            let [batch, channels, side] = [batch, channels, side].map(|side| self.side(side));
            let groups = channels.min(32);
            let channels = channels / groups * groups;
            let [weight, bias] = [(); 2].map(|()| self.random(&[channels], Kind::Half));
            for layout in ["nchw", "channels-last"] {
                let ordered = |x: Tensor| if layout == "nchw" { x } else { channels_last(&x) };
                let x = ordered(self.random(&[batch, channels, side, side], Kind::Half));
                let case = |way: &str| Case {
                    what: format!("norm and SiLU {way} {batch}x{channels} at {side}x{side}"),
                    dtype: "f16",
                    layout,
                    flops: 0.0,
                    // Read and written once.
                    bytes: 4.0 * x.numel() as f64,
                };
                let norm = |x: &Tensor| x.group_norm(groups, Some(&weight), Some(&bias), 1e-5, true);
                self.time(&case("forward"), || norm(&x).silu_())?;
                let leaf = x.detach().set_requires_grad(true);
                self.time(&case("forward and backward"), || {
                    let normed = tch::with_grad(|| norm(&leaf));
                    let gradient = normed.detach().silu_backward(&x);
                    let gradients = libtorch::backward(&[(&normed, &gradient)], &[&leaf]);
                    gradients.unwrap_or_else(|error| panic!("{error}")).swap_remove(0)
                })?;
            }
        }
        Ok(())
    }

    /// All of the UNet's, on itself and on a text, and the decoder's.
    fn attentions(&self) -> Result<()> {
        for (kernels, which) in [(Kernels::Flash, "flash"), (Kernels::Cudnn, "cudnn")] {
            place::set_attention(kernels)?;
            for (batch, heads, side, keys, width) in [
                (26, 5, 64, None, 64),
                (26, 10, 32, None, 64),
                (26, 20, 16, None, 64),
                (26, 20, 8, None, 64),
                (26, 5, 64, Some(77), 64),
                (26, 10, 32, Some(77), 64),
                (26, 20, 16, Some(77), 64),
                (26, 20, 8, Some(77), 64),
                (12, 1, 64, None, 512),
            ] {
                let [batch, side] = [batch, side].map(|side| self.side(side));
                let queries = side * side;
                let keys = keys.unwrap_or(queries);
                let [q, g] = [(); 2].map(|()| self.random(&[batch, heads, queries, width], Kind::Half));
                let [k, v] = [(); 2].map(|()| self.random(&[batch, heads, keys, width], Kind::Half));
                let flops = 4.0 * (batch * heads * queries * keys * width) as f64;
                let case = |way: &str, flops| Case {
                    what: format!("attention {way} {batch}x{heads} of {queries} and {keys}, {width} wide"),
                    dtype: "f16",
                    layout: which,
                    flops,
                    bytes: 0.0,
                };
                let attend = |q: &Tensor| {
                    Tensor::scaled_dot_product_attention(q, &k, &v, None::<&Tensor>, 0.0, false, None, false)
                };
                self.time(&case("forward", flops), || attend(&q))?;
                let leaf = q.detach().set_requires_grad(true);
                self.time(&case("forward and backward", 3.5 * flops), || {
                    let output = tch::with_grad(|| attend(&leaf));
                    let gradients = libtorch::backward(&[(&output, &g)], &[&leaf]);
                    gradients.unwrap_or_else(|error| panic!("{error}")).swap_remove(0)
                })?;
            }
        }
        place::set_attention(Kernels::Auto)
    }
}

fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
