//! Flags of `serve`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use prediction::bucket;
use prediction::redacted::Redacted;
use prediction::service::Options;
use prediction::store::Retention;
use prediction::worker::Program;

use super::access::Access;
use super::limits::Limits;
use super::model_name::ModelName;
use super::outputs::Outputs;
use super::words::{dtype, switch, web_url};
use super::worker::WorkerArgs;
use crate::store::{Place, Shared};
use crate::units::{bytes, count, duration};

/// The shortest lease.
const MIN_LEASE: Duration = Duration::from_secs(3);

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
    /// Workers for each device; 0 with `--database` leaves the work to other servers
    #[arg(long, env = "SYNCDIFFUSION_WORKERS", default_value_t = 1, value_parser = count, help_heading = "Worker")]
    #[arg(requires_if("0", "database"))]
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
    /// Accept predictions for the model that a server had last while none of the database has a worker
    #[arg(long, env = "SYNCDIFFUSION_ACCEPT_WITHOUT_WORKERS", num_args = 0..=1, default_missing_value = "true")]
    #[arg(default_value = "false", value_parser = switch, requires = "database", help_heading = "Queue")]
    pub(crate) accept_without_workers: bool,
    /// How many seconds a prediction may run
    #[arg(long, env = "SYNCDIFFUSION_MAX_PREDICT_SECONDS", value_parser = duration, help_heading = "Queue")]
    pub(crate) max_predict_seconds: Option<Duration>,
    /// How long running predictions may continue after SIGTERM; what is left stays in the store
    #[arg(long, env = "SYNCDIFFUSION_GRACE", default_value = "30s", value_parser = duration, help_heading = "Queue")]
    pub(crate) grace: Duration,
    /// Folder for predictions and pictures; `none` keeps them in memory
    #[arg(long, env = "SYNCDIFFUSION_DATA_DIR", default_value = "data", help_heading = "Store")]
    pub(crate) data_dir: PathBuf,
    /// PostgreSQL database for predictions and pictures, which any number of servers share, instead of a folder:
    /// `postgres://USER:PASSWORD@HOST:PORT/NAME`
    #[arg(long, env = "SYNCDIFFUSION_DATABASE", hide_env_values = true)]
    #[arg(value_name = "URL", help_heading = "Store")]
    pub(crate) database: Option<Redacted>,
    /// How long another server of the database may be silent before what it holds is given to others
    #[arg(long, env = "SYNCDIFFUSION_LEASE", default_value = "15s", value_parser = lease, help_heading = "Store")]
    pub(crate) lease: Duration,
    /// Dtype in which all workers of the database must compute, so that they draw the same pictures: `f32`, `bf16` or
    /// `f16`; the first server that names one decides
    #[arg(long, env = "SYNCDIFFUSION_FLEET_DTYPE", value_parser = fleet_dtype, requires = "database")]
    #[arg(value_name = "DTYPE", help_heading = "Store")]
    pub(crate) fleet_dtype: Option<String>,
    /// Bucket for the pictures of the database, `s3://bucket/prefix`; the first server that names one decides, and the
    /// others take it from the database (keys and region come from the variables `AWS_*`, the address from
    /// `--s3-endpoint`)
    #[arg(long, env = "SYNCDIFFUSION_PICTURES", value_parser = bucket_url, requires = "database")]
    #[arg(value_name = "URL", help_heading = "Store")]
    pub(crate) pictures: Option<String>,
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
        self.database.is_none() && self.data_dir.as_os_str() == "none"
    }

    /// Whether other servers of the database have the workers, and this one none.
    pub(crate) fn is_without_workers(&self) -> bool {
        self.database.is_some() && self.workers == 0
    }

    /// The folder of predictions and secrets, if there is one.
    pub(crate) fn data_dir(&self) -> Option<&Path> {
        (self.database.is_none() && !self.in_memory()).then_some(self.data_dir.as_path())
    }

    /// The workers to start.
    pub(crate) fn programs(&self) -> Vec<Program> {
        if self.is_without_workers() { Vec::new() } else { self.worker.programs(self.workers) }
    }

    /// The address to listen on, as the flags name it.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Where its predictions are.
    pub(crate) fn place(&self) -> Place<'_> {
        match (&self.database, self.data_dir()) {
            (Some(url), _) => Place::Database {
                url: url.reveal(),
                dtype: self.fleet_dtype.as_deref(),
                pictures: self.pictures.as_deref(),
            },
            (None, Some(dir)) => Place::Folder(dir),
            (None, None) => Place::Memory,
        }
    }

    /// How the service behaves. The data folder must exist; `shared` is what all servers of a database have in common.
    ///
    /// # Errors
    /// If the secret that webhooks are signed with cannot be read or kept.
    pub(crate) fn options(&self, shared: Option<&Shared>) -> anyhow::Result<Options> {
        let in_memory = self.in_memory().then_some(256 << 20);
        Ok(Options {
            queue_size: self.queue_size,
            queue_seconds: self.queue_cost.map(|cost| cost.as_secs_f64()),
            max_predict: self.max_predict_seconds,
            hang: self.hang_timeout,
            load: if self.setup_timeout.is_zero() { Duration::MAX } else { self.setup_timeout },
            retention: Retention { age: self.keep, count: self.keep_count, bytes: self.keep_bytes.or(in_memory) },
            own_model: shared.is_some(),
            accept_without_workers: self.accept_without_workers,
            dtype: shared.and_then(|shared| shared.dtype.clone()),
            lease: self.lease,
            webhooks: self.outputs.webhooks(self.data_dir(), shared.map(|shared| shared.webhook_secret.as_str()))?,
            place: self.outputs.place(),
            metadata: self.outputs.metadata(),
            gate: self.outputs.gate(self.host, self.public_url.as_deref()),
            stream_history: self.stream_history,
        })
    }
}

/// A duration that is longer than a few beats.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    if lease < MIN_LEASE {
        Err("write a duration of at least 3s: servers beat once a second".to_owned())
    } else {
        Ok(lease)
    }
}

/// A dtype that is named.
fn fleet_dtype(text: &str) -> Result<String, String> {
    dtype(text).ok().filter(|dtype| dtype != "auto").ok_or_else(|| "write `f32`, `bf16` or `f16`".to_owned())
}

/// A bucket.
fn bucket_url(text: &str) -> Result<String, String> {
    bucket::split(text).map(|_| text.to_owned())
}

/// An address of this machine.
fn host(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| "write an IP address: `127.0.0.1` for this machine only, `0.0.0.0` for all networks".to_owned())
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "write a number from 0 to 65535".to_owned())
}
