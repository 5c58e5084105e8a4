//! What only a worker knows: libtorch, devices, memory. It reports them as `syncdiffusion-worker doctor`.

use std::process::Stdio;
use std::time::Duration;

use indicatif::HumanBytes;
use prediction::worker::secrets;
use serde::Deserialize;
use tokio::process::Command;

use super::report::{Check, Verdict};
use crate::config::Serve;

/// How long a worker may take to report: libtorch is large, and disks can be slow.
const TIMEOUT: Duration = Duration::from_mins(2);

/// What a worker reports.
#[derive(Debug, Deserialize)]
struct Report {
    libtorch: String,
    cuda: Cuda,
    cpu: Cpu,
    /// What `auto` stands for; `None` if no device works.
    auto: Option<Auto>,
    memory: Memory,
    /// Whether the model can be loaded, where the worker looked.
    #[serde(default)]
    model: Option<Model>,
}

#[derive(Debug, Default, Deserialize)]
struct Model {
    problem: Option<String>,
    window: Option<u32>,
    vae_factor: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Cuda {
    available: bool,
    /// Why it is not available.
    why: Option<String>,
    devices: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Cpu {
    threads: u64,
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Auto {
    device: String,
    dtype: String,
}

#[derive(Debug, Deserialize)]
struct Memory {
    available: u64,
}

/// Asks a worker, and checks that it has what the flags ask for. `weights` is the size of the model in bytes.
pub(super) async fn checks(serve: &Serve, model: Check, weights: u64) -> Vec<Check> {
    const NAME: &str = "libtorch";
    let build = "build the worker with `make build`, or say where it is with `--worker`";
    match ask(serve).await {
        Err(why) => vec![Check::problem(NAME, why, build), model],
        Ok(report) => {
            let mut checks = vec![Check::ok(NAME, format!("libtorch {}", report.libtorch))];
            checks.extend(serve.worker.device.iter().map(|wanted| device(wanted, &serve.worker.dtype, &report)));
            checks.push(memory(&report, weights));
            checks.push(judge(model, report.model.unwrap_or_default()));
            checks
        }
    }
}

async fn ask(serve: &Serve) -> Result<Report, String> {
    let Some(program) = serve.worker.programs(1).into_iter().next() else {
        return Err("`--device` names no device".to_owned());
    };
    let path = program.path.display();
    let mut command = Command::new(&program.path);
    command.arg("doctor").args(["--model", &serve.worker.model]).args(serve.worker.model_arguments());
    secrets().for_each(|name| _ = command.env_remove(name));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = match tokio::time::timeout(TIMEOUT, command.output()).await {
        Err(_) => return Err(format!("the worker `{path}` does not answer")),
        Ok(Err(error)) => return Err(format!("cannot start the worker `{path}`: {error}")),
        Ok(Ok(output)) => output,
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    if !output.status.success() {
        return Err(format!("the worker `{path}` ended with {}: {last}", output.status));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("the report of the worker `{path}` cannot be read: {error}"))
}

/// What is said of the model: what was found without a worker, if that is bad enough, or else what the worker reads.
fn judge(model: Check, read: Model) -> Check {
    if model.verdict != Verdict::Ok {
        return model;
    }
    match (read.problem, read.window, read.vae_factor) {
        (Some(problem), ..) => Check::problem(model.name, problem, "docs/troubleshooting.md says more of models"),
        (None, Some(window), Some(factor)) => {
            Check::ok(model.name, format!("{}; windows of {} pixels", model.found, window * factor))
        }
        _ => model,
    }
}

/// Whether a device of `--device` is available.
fn device(wanted: &str, dtype: &str, report: &Report) -> Check {
    const NAME: &str = "device";
    let Report { cuda, cpu, auto, .. } = report;
    let why = cuda.why.as_deref().unwrap_or("the reason is not known");
    let dtype = auto.as_ref().filter(|_| dtype == "auto").map_or(dtype, |auto| &auto.dtype);
    let processor = || format!("{} threads, {}", cpu.threads, cpu.features.join(" "));
    match wanted {
        "auto" => match auto {
            None => {
                Check::problem(NAME, "`auto` finds no device", "choose one with `--device` to see why it does not work")
            }
            Some(auto) if auto.device == "cpu" => {
                Check::ok(NAME, format!("`auto` is the CPU in {dtype} ({}); no CUDA: {why}", processor()))
            }
            Some(auto) => {
                Check::ok(NAME, format!("`auto` is {} in {dtype} ({})", auto.device, cuda.devices.join(", ")))
            }
        },
        "cpu" => Check::ok(NAME, format!("the CPU ({})", processor())),
        _ => {
            let index = wanted.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or("0").parse::<usize>());
            match index {
                None | Some(Err(_)) => Check::problem(
                    NAME,
                    format!("`{wanted}` is not a device"),
                    "write `auto`, `cpu`, `cuda` or `cuda:N` for `--device`",
                ),
                Some(Ok(_)) if !cuda.available => {
                    let advice = "install the driver and the CUDA build of libtorch, or choose `--device cpu`";
                    Check::problem(NAME, format!("`{wanted}` is not available: {why}"), advice)
                }
                Some(Ok(index)) => match cuda.devices.get(index) {
                    Some(name) => Check::ok(NAME, format!("`{wanted}` is {name}")),
                    None => Check::problem(
                        NAME,
                        format!("`{wanted}` is not available; the number of devices is {}", cuda.devices.len()),
                        "choose a smaller number for `--device`",
                    ),
                },
            }
        }
    }
}

/// Whether the weights fit into memory.
fn memory(report: &Report, weights: u64) -> Check {
    const NAME: &str = "memory";
    let available = report.memory.available;
    let found = format!("{} available", HumanBytes(available));
    if weights > available {
        let found = format!("{found}, less than the {} of the weights", HumanBytes(weights));
        return Check::warning(NAME, found, "close other programs, or fetch the model with `--variant fp16`");
    }
    Check::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict;

    fn report(cuda: &str) -> Report {
        let text = format!(
            r#"{{"libtorch":"2.11.0","cuda":{cuda},"cpu":{{"threads":2,"features":["avx2"]}},
            "auto":{{"device":"cpu","dtype":"bf16"}},"memory":{{"available":1000}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn devices_are_compared_with_what_is_available() {
        let none = report(r#"{"available":false,"why":"there is no driver","devices":[]}"#);
        let one = report(r#"{"available":true,"why":null,"devices":["NVIDIA H100"]}"#);
        for (wanted, report, verdict, words) in [
            ("auto", &none, Verdict::Ok, "the CPU in bf16"),
            ("cpu", &none, Verdict::Ok, "2 threads"),
            ("cuda", &none, Verdict::Problem, "there is no driver"),
            ("cuda:0", &one, Verdict::Ok, "NVIDIA H100"),
            ("cuda:1", &one, Verdict::Problem, "the number of devices is 1"),
            ("cuda:x", &one, Verdict::Problem, "not a device"),
            ("gpu", &one, Verdict::Problem, "not a device"),
        ] {
            let check = device(wanted, "auto", report);
            assert_eq!(check.verdict, verdict, "{wanted}");
            assert!(check.found.contains(words), "{wanted}: {}", check.found);
        }
    }

    #[test]
    fn memory_is_compared_with_the_weights() {
        let report = report(r#"{"available":false,"why":null,"devices":[]}"#);
        assert_eq!(memory(&report, 999).verdict, Verdict::Ok);
        assert_eq!(memory(&report, 1001).verdict, Verdict::Warning);
    }
}
