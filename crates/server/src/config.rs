//! Flags and environment, parsed once; nothing else reads the environment.

mod doors;
mod outputs;
mod telemetry;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use prediction::store::Retention;
use prediction::worker::Program;

pub(crate) use doors::Doors;
pub(crate) use telemetry::{LogFormat, Telemetry};

/// A prompt in, a panorama out: SyncDiffusion on Stable Diffusion 2, wire-compatible with Replicate's Cog.
#[derive(Debug, Parser)]
#[command(name = "syncdiffusion", version, max_term_width = 120)]
pub(crate) struct Config {
    #[command(flatten)]
    pub(crate) telemetry: Telemetry,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve predictions over HTTP
    #[command(args_override_self = true)]
    Serve(Box<Serve>),
    /// Make one picture
    #[command(args_override_self = true)]
    Generate(Box<crate::generate::Generate>),
    /// Fetch models, and check them
    #[command(subcommand)]
    Weights(crate::weights::Weights),
    /// Look whether `serve` with the same flags and environment would do, and say what to do if not
    #[command(args_override_self = true)]
    Doctor(Box<crate::doctor::Doctor>),
    /// Print the OpenAPI document as YAML
    #[command(hide = true)]
    Openapi,
    /// Print the table of figures in `docs/operating.md`
    #[command(hide = true)]
    Figures,
}

/// Which worker to start, on what.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Worker")]
pub(crate) struct Crew {
    /// The model: `demo`, the name of a fetched one (`weights fetch sd2`), or a folder in the layout of diffusers with
    /// `perceptual/` in it
    #[arg(long, env = "SYNCDIFFUSION_MODEL", default_value = "demo")]
    pub(crate) model: String,
    /// `auto`, `cpu`, `cuda` or `cuda:N`; several, separated by commas, start a worker each
    #[arg(long, env = "SYNCDIFFUSION_DEVICE", default_value = "auto", value_delimiter = ',')]
    pub(crate) device: Vec<String>,
    /// `auto`, `f32`, `bf16` or `f16`
    #[arg(long, env = "SYNCDIFFUSION_DTYPE", default_value = "auto")]
    pub(crate) dtype: String,
    /// Most memory that a worker may take, such as `20GiB`
    #[arg(long, env = "SYNCDIFFUSION_MEMORY_BUDGET")]
    pub(crate) memory_budget: Option<String>,
    /// The worker's executable, if it is not beside this one
    #[arg(long, env = "SYNCDIFFUSION_WORKER")]
    pub(crate) worker: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) places: crate::weights::Places,
}

impl Crew {
    /// Makes the name of a fetched model the folder of it.
    ///
    /// # Errors
    /// If there is no such model; the message says what would do.
    pub(crate) fn resolve(&mut self) -> Result<(), weights::Error> {
        self.model = self.places.home().resolve(&self.model)?;
        Ok(())
    }

    /// One program a worker: `each` of them for every device.
    pub(crate) fn programs(&self, each: usize) -> Vec<Program> {
        let more: Vec<String> =
            self.memory_budget.iter().flat_map(|budget| ["--memory-budget".to_owned(), budget.clone()]).collect();
        let program = |device: &String| Program::new(self.worker.clone(), &self.model, device, &self.dtype, &more);
        self.device.iter().flat_map(|device| std::iter::repeat_n(program(device), each.max(1))).collect()
    }
}

/// The server.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on
    #[arg(long, env = "SYNCDIFFUSION_HOST", default_value = "0.0.0.0", value_parser = host, help_heading = "Address")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", default_value_t = 5000, value_parser = port, help_heading = "Address")]
    pub(crate) port: u16,
    /// URL under which clients reach the server, for the `urls` of predictions; otherwise the one they used
    #[arg(long, env = "SYNCDIFFUSION_PUBLIC_URL", help_heading = "Address")]
    pub(crate) public_url: Option<String>,
    #[command(flatten)]
    pub(crate) doors: Doors,
    #[command(flatten)]
    pub(crate) crew: Crew,
    /// Workers for each device
    #[arg(long, env = "SYNCDIFFUSION_WORKERS", default_value_t = 1, value_parser = count, help_heading = "Worker")]
    pub(crate) workers: usize,
    /// How long a worker may take to load; 0 is as long as it likes
    #[arg(long, env = "COG_SETUP_TIMEOUT", default_value = "30m", value_parser = duration, help_heading = "Worker")]
    pub(crate) setup_timeout: Duration,
    /// How long a worker with a job may say nothing before it is replaced
    #[arg(long, env = "SYNCDIFFUSION_HANG_TIMEOUT", default_value = "10m", value_parser = duration, help_heading = "Worker")]
    pub(crate) hang_timeout: Duration,
    /// How many predictions may wait; 0 answers 409 as soon as all workers are taken, as Cog does
    #[arg(long, env = "SYNCDIFFUSION_QUEUE_SIZE", default_value_t = 100, value_parser = count, help_heading = "Queue")]
    pub(crate) queue_size: usize,
    /// How many predicted seconds of work may wait
    #[arg(long, env = "SYNCDIFFUSION_QUEUE_COST", value_parser = seconds, help_heading = "Queue")]
    pub(crate) queue_cost: Option<f64>,
    /// How many seconds a prediction may run
    #[arg(long, env = "SYNCDIFFUSION_MAX_PREDICT_SECONDS", value_parser = seconds, help_heading = "Queue")]
    pub(crate) max_predict_seconds: Option<f64>,
    /// How long what runs may go on after SIGTERM; the rest waits in the store
    #[arg(long, env = "SYNCDIFFUSION_GRACE", default_value = "30s", value_parser = duration, help_heading = "Queue")]
    pub(crate) grace: Duration,
    /// Folder for predictions and pictures; `none` keeps them in memory
    #[arg(long, env = "SYNCDIFFUSION_DATA_DIR", default_value = "data", help_heading = "Store")]
    pub(crate) data_dir: PathBuf,
    /// How long what has ended is kept, such as `7d`
    #[arg(long, env = "SYNCDIFFUSION_KEEP", value_parser = duration, help_heading = "Store")]
    pub(crate) keep: Option<Duration>,
    /// How many ended predictions are kept
    #[arg(long, env = "SYNCDIFFUSION_KEEP_COUNT", help_heading = "Store")]
    pub(crate) keep_count: Option<u64>,
    /// How many bytes of pictures are kept, such as `10GiB`; in memory, 256MiB unless said otherwise
    #[arg(long, env = "SYNCDIFFUSION_KEEP_BYTES", value_parser = bytes, help_heading = "Store")]
    pub(crate) keep_bytes: Option<u64>,
    #[command(flatten)]
    pub(crate) outputs: outputs::Outputs,
    /// How many events of a prediction are shown to those who begin to follow it later
    #[arg(long, env = "COG_STREAM_HISTORY_CAPACITY", default_value_t = 1024, value_parser = count, help_heading = "Output")]
    pub(crate) stream_history: usize,
    /// Set by Kubernetes; a file then tells its probes that the server has been ready, as Cog's does
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    pub(crate) kubernetes_service_host: Option<String>,
    /// Ignore SIGTERM, and stop on SIGINT and POST /shutdown only
    #[arg(long, env = "SYNCDIFFUSION_AWAIT_EXPLICIT_SHUTDOWN", num_args = 0..=1, default_missing_value = "true", default_value = "false", help_heading = "Address")]
    pub(crate) await_explicit_shutdown: bool,
}

impl Serve {
    /// Whether predictions are kept in memory only.
    pub(crate) fn in_memory(&self) -> bool {
        self.data_dir.as_os_str() == "none"
    }

    /// How the service behaves. The data folder must be there.
    ///
    /// # Errors
    /// If there is no secret to sign webhooks with.
    pub(crate) fn options(&self) -> anyhow::Result<prediction::service::Options> {
        let in_memory = self.in_memory().then_some(256 << 20);
        let data_dir = (!self.in_memory()).then_some(self.data_dir.as_path());
        Ok(prediction::service::Options {
            queue_size: self.queue_size,
            queue_seconds: self.queue_cost,
            max_predict: self.max_predict_seconds.map(Duration::from_secs_f64),
            hang: self.hang_timeout,
            load: if self.setup_timeout.is_zero() { Duration::MAX } else { self.setup_timeout },
            retention: Retention { age: self.keep, count: self.keep_count, bytes: self.keep_bytes.or(in_memory) },
            webhooks: self.outputs.webhooks(data_dir)?,
            place: self.outputs.place(),
            metadata: self.outputs.metadata(),
            gate: self.outputs.gate(self.host),
            stream_history: self.stream_history,
        })
    }
}

/// Longest duration that is taken; clocks can still count it.
const LONGEST: Duration = Duration::from_hours(24 * 365 * 100);

/// An address of this machine.
fn host(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| "write an IP address: `127.0.0.1` for this machine only, `0.0.0.0` for all networks".to_owned())
}

/// A port.
fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "write a number from 0 to 65535".to_owned())
}

/// How many.
fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "write a whole number, 0 or more".to_owned())
}

/// A number of seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=LONGEST.as_secs_f64()).contains(seconds));
    seconds.ok_or_else(|| "write a number of seconds such as `0.5`".to_owned())
}

/// A duration: whole seconds, or numbers with the units `s`, `m`, `h`, `d`, such as `90`, `30s`, `1m30s`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write `90`, `30s`, `1m30s`, `2h` or `7d`");
    let limited =
        |duration| if duration > LONGEST { Err(format!("`{text}` is more than 100 years")) } else { Ok(duration) };
    if let Ok(seconds) = text.parse() {
        return limited(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let (unit, factor) = [("ms", 0), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]
            .into_iter()
            .find(|(unit, _)| rest[digits..].starts_with(unit))
            .ok_or_else(wrong)?;
        let part = if factor == 0 {
            Duration::from_millis(number)
        } else {
            Duration::from_secs(number.checked_mul(factor).ok_or_else(wrong)?)
        };
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[digits + unit.len()..];
    }
    if text.is_empty() { Err(wrong()) } else { limited(total) }
}

/// A number of bytes, such as `1000`, `512MiB`, `10GB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a number of bytes; write `1000000`, `512MiB` or `10GB`");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let factor: u64 = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "tib" | "t" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Config::command().debug_assert();
    }

    #[test]
    fn every_flag_of_the_server_has_a_variable() {
        let mut command = Config::command();
        command.build();
        let serve = command.find_subcommand("serve").unwrap();
        for flag in serve.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
            let name = flag.get_id();
            let variable = flag.get_env().and_then(|env| env.to_str()).unwrap_or_else(|| panic!("{name} has none"));
            let known = ["RUST_LOG", "LOG_FORMAT", "PORT", "WEBHOOK_AUTH_TOKEN", "HOME", "XDG_DATA_HOME"];
            let foreign = ["COG_", "KUBERNETES_", "OTEL_"];
            let expected = format!("SYNCDIFFUSION_{}", name.as_str().to_uppercase());
            assert!(
                known.contains(&variable)
                    || foreign.iter().any(|prefix| variable.starts_with(prefix))
                    || variable == expected
                    || (name == "home" && variable == "SYNCDIFFUSION_HOME"),
                "{name}: {variable} is not {expected}"
            );
            let secret = ["TOKEN", "SECRET"].iter().any(|word| variable.contains(word));
            let only_about_one = variable.ends_with("_FILE") || variable.contains("SHOW_");
            assert!(!secret || only_about_one || flag.is_hide_env_values_set(), "the help shows {variable}");
            assert!(flag.is_hide_set() || flag.get_help_heading().is_some(), "{name} is in no group of the help");
        }
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "x", "1x", "s", "5m3", "-1", "99999999999999999999d", "36501d", "9999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(seconds("0.25"), Ok(0.25));
        assert!(["", "x", "-1", "NaN", "inf", "1e30"].iter().all(|bad| seconds(bad).is_err()));
        assert_eq!(bytes("10GB"), Ok(10_000_000_000));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert!(bytes("GB").is_err() && bytes("1XB").is_err());
    }
}
