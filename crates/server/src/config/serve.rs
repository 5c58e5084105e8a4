//! Flags of `serve`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use prediction::service::Options;
use prediction::store::Retention;

use super::access::Access;
use super::limits::Limits;
use super::model_name::ModelName;
use super::outputs::Outputs;
use super::words::{switch, web_url};
use super::worker::WorkerArgs;
use crate::units::{bytes, count, duration};

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on
    #[arg(long, env = "SYNCDIFFUSION_HOST", default_value = "0.0.0.0", value_parser = host, help_heading = "Address")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "PORT", default_value_t = 5000, value_parser = port, help_heading = "Address")]
    pub(crate) port: u16,
    /// URL at which clients reach the server, for the `urls` of predictions; by default the one that a client used
    #[arg(long, env = "SYNCDIFFUSION_PUBLIC_URL", value_parser = web_url, help_heading = "Address")]
    pub(crate) public_url: Option<String>,
    /// Name of the model for clients of Replicate, as `OWNER/NAME`
    #[arg(long, env = "SYNCDIFFUSION_MODEL_NAME", default_value = "syncdiffusion/panorama", help_heading = "Address")]
    #[arg(value_name = "OWNER/NAME")]
    pub(crate) model_name: ModelName,
    #[command(flatten)]
    pub(crate) access: Access,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
    /// Workers for each device
    #[arg(long, env = "SYNCDIFFUSION_WORKERS", default_value_t = 1, value_parser = count, help_heading = "Worker")]
    pub(crate) workers: usize,
    /// How long a worker may take to load; 0 means no limit
    #[arg(long, env = "COG_SETUP_TIMEOUT", default_value = "30m", value_parser = duration, help_heading = "Worker")]
    pub(crate) setup_timeout: Duration,
    /// How long a worker with a job may be silent before it is replaced
    #[arg(long, env = "SYNCDIFFUSION_HANG_TIMEOUT", default_value = "10m", value_parser = duration)]
    #[arg(help_heading = "Worker")]
    pub(crate) hang_timeout: Duration,
    /// When to end with status 3 because no worker is left
    #[arg(long, env = "SYNCDIFFUSION_EXIT_WITHOUT_WORKERS", default_value = "lost", ignore_case = true)]
    #[arg(value_name = "WHEN", help_heading = "Worker")]
    pub(crate) exit_without_workers: ExitWithoutWorkers,
    /// How many predictions may wait; with 0 the server answers 409 while all workers are busy, as Cog does
    #[arg(long, env = "SYNCDIFFUSION_QUEUE_SIZE", default_value_t = 100, value_parser = count, help_heading = "Queue")]
    pub(crate) queue_size: usize,
    /// How many seconds of work may wait, as estimated
    #[arg(long, env = "SYNCDIFFUSION_QUEUE_COST", value_parser = duration, help_heading = "Queue")]
    pub(crate) queue_cost: Option<Duration>,
    /// How many seconds a prediction may run
    #[arg(long, env = "SYNCDIFFUSION_MAX_PREDICT_SECONDS", value_parser = duration, help_heading = "Queue")]
    pub(crate) max_predict_seconds: Option<Duration>,
    /// How long running predictions may continue after SIGTERM; what is left stays in the store
    #[arg(long, env = "SYNCDIFFUSION_GRACE", default_value = "30s", value_parser = duration, help_heading = "Queue")]
    pub(crate) grace: Duration,
    /// Folder for predictions and pictures; `none` keeps them in memory
    #[arg(long, env = "SYNCDIFFUSION_DATA_DIR", default_value = "data", help_heading = "Store")]
    pub(crate) data_dir: PathBuf,
    /// How long ended predictions are kept, such as `7d`
    #[arg(long, env = "SYNCDIFFUSION_KEEP", value_parser = duration, help_heading = "Store")]
    pub(crate) keep: Option<Duration>,
    /// How many ended predictions are kept
    #[arg(long, env = "SYNCDIFFUSION_KEEP_COUNT", help_heading = "Store")]
    pub(crate) keep_count: Option<u64>,
    /// How many bytes of pictures are kept, such as `10GiB`; the default is 256MiB in memory, and no limit on a disk
    #[arg(long, env = "SYNCDIFFUSION_KEEP_BYTES", value_parser = bytes, help_heading = "Store")]
    pub(crate) keep_bytes: Option<u64>,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// How many past events of a prediction are sent to clients that begin to follow it later
    #[arg(long, env = "COG_STREAM_HISTORY_CAPACITY", default_value_t = 1024, value_parser = count)]
    #[arg(help_heading = "Output")]
    pub(crate) stream_history: usize,
    /// Set by Kubernetes; the server then writes a file for its probes once it is ready, as Cog's does
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    pub(crate) kubernetes_service_host: Option<String>,
    /// Ignore SIGTERM, and stop on SIGINT and POST /shutdown only
    #[arg(long, env = "SYNCDIFFUSION_AWAIT_EXPLICIT_SHUTDOWN", num_args = 0..=1, default_missing_value = "true")]
    #[arg(default_value = "false", value_parser = switch, help_heading = "Address")]
    pub(crate) await_explicit_shutdown: bool,
}

/// When a server without workers ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExitWithoutWorkers {
    /// When all that had loaded were lost permanently; whoever started it may start it again
    #[value(aliases = ["yes", "true", "1"])]
    Lost,
    /// Also when none could load
    Always,
    /// Stay, and show the state in the health check
    #[value(aliases = ["stay", "no", "false", "0"])]
    Never,
}

impl Serve {
    /// Whether predictions are kept in memory only.
    pub(crate) fn in_memory(&self) -> bool {
        self.data_dir.as_os_str() == "none"
    }

    /// The address to listen on, as the flags name it.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// How the service behaves. The data folder must exist.
    ///
    /// # Errors
    /// If the secret that webhooks are signed with cannot be read or kept.
    pub(crate) fn options(&self) -> anyhow::Result<Options> {
        let in_memory = self.in_memory().then_some(256 << 20);
        let data_dir = (!self.in_memory()).then_some(self.data_dir.as_path());
        Ok(Options {
            queue_size: self.queue_size,
            queue_seconds: self.queue_cost.map(|cost| cost.as_secs_f64()),
            max_predict: self.max_predict_seconds,
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

/// An address of this machine.
fn host(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| "write an IP address: `127.0.0.1` for this machine only, `0.0.0.0` for all networks".to_owned())
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "write a number from 0 to 65535".to_owned())
}
