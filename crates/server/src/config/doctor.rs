//! Flags of `doctor`: those of `serve`, and how to report.

use clap::Args;

use super::serve::Serve;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) serve: Serve,
    /// Print one JSON object
    #[arg(long, help_heading = "Report")]
    pub(crate) json: bool,
}
