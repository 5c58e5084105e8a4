//! Flags for how much clients may send, and how long they may take.

use std::time::Duration;

use clap::Args;

use crate::units::{bytes, count, positive_duration};

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Largest body of a request; Cog's is 100MiB
    #[arg(long, env = "SYNCDIFFUSION_MAX_BODY", default_value = "100MiB", value_parser = bytes)]
    pub(crate) max_body: u64,
    /// How long the header of a request may take, and a new connection may be silent
    #[arg(long, env = "SYNCDIFFUSION_HEADER_TIMEOUT", default_value = "30s", value_parser = positive_duration)]
    pub(crate) header_timeout: Duration,
    /// How long a connection may be idle between requests; longer than the load balancer before it keeps one
    #[arg(long, env = "SYNCDIFFUSION_IDLE_TIMEOUT", default_value = "75s", value_parser = positive_duration)]
    pub(crate) idle_timeout: Duration,
    /// How long the body of a request may take
    #[arg(long, env = "SYNCDIFFUSION_BODY_TIMEOUT", default_value = "1m", value_parser = positive_duration)]
    pub(crate) body_timeout: Duration,
    /// How long a client may leave its response unread before its connection is closed
    #[arg(long, env = "SYNCDIFFUSION_WRITE_TIMEOUT", default_value = "1m", value_parser = positive_duration)]
    pub(crate) write_timeout: Duration,
    /// How many connections may be open; more wait to be accepted
    #[arg(long, env = "SYNCDIFFUSION_MAX_CONNECTIONS", default_value_t = 10240, value_parser = count)]
    pub(crate) max_connections: usize,
}
