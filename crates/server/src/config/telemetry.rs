//! Flags for log and traces.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct Telemetry {
    /// What to log to stderr: `error`, `warn`, `info`, `debug`, or a filter such as `info,prediction=debug`
    #[arg(long, env = "RUST_LOG", global = true, value_parser = filter)]
    log: Option<String>,
    /// Cog's variable for `--log`, which is used if that is not set
    #[arg(long, env = "COG_LOG_LEVEL", global = true, hide = true, value_parser = filter)]
    cog_log_level: Option<String>,
    /// How to write the log
    #[arg(long, env = "LOG_FORMAT", global = true, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Where spans of requests and predictions are sent by OTLP over HTTP, such as `http://localhost:4318`
    #[cfg(feature = "otel")]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", global = true, value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[value(alias = "console")]
    Text,
    /// One JSON object a line
    Json,
}

impl Telemetry {
    /// The filter of the log, if the flags have one.
    pub(crate) fn filter(&self) -> Option<&str> {
        self.log.as_deref().or(self.cog_log_level.as_deref())
    }
}

/// Targets of this program. On the finer levels, libraries log connections and their bytes, tokens included.
const OURS: [&str; 4] = ["prediction", "syncdiffusion", "weights", "worker"];

/// A filter, or one of Cog's levels in upper or lower case, which applies to what this program logs.
fn filter(text: &str) -> Result<String, String> {
    let level = text.trim().to_ascii_lowercase();
    let known = match level.as_str() {
        "warning" => "warn".to_owned(),
        "" => "info".to_owned(),
        "error" | "warn" | "info" | "off" => level,
        "debug" | "trace" => OURS.iter().fold("info".to_owned(), |all, target| format!("{all},{target}={level}")),
        // A filter is case-sensitive. A word that is not a level would be the name of a module, and enable all of it.
        _ if text.contains(['=', ',', ':']) => text.to_owned(),
        _ => {
            return Err(
                "write `error`, `warn`, `info` or `debug`, or a filter such as `info,prediction=debug`".to_owned()
            );
        }
    };
    match EnvFilter::try_new(&known) {
        Ok(_) => Ok(known),
        Err(error) => Err(format!("{error}; write a filter such as `info,prediction=debug`")),
    }
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn levels_of_cog_and_filters_are_read() {
        for (text, read) in [("WARNING", "warn"), ("", "info"), ("info,prediction=debug", "info,prediction=debug")] {
            assert_eq!(filter(text).as_deref(), Ok(read));
        }
        assert!(filter("DEBUG").is_ok_and(|is| is.starts_with("info,") && is.contains("prediction=debug")));
        for wrong in ["loud", "info,prediction=loud"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
