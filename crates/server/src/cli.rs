//! The command line: the commands of the program. Their flags are in `config`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{Doctor, Evaluate, Generate, Serve, Telemetry, Weights};

/// A prompt in, a panorama out: SyncDiffusion on Stable Diffusion 2, wire-compatible with Replicate's Cog.
#[derive(Debug, Parser)]
#[command(name = "syncdiffusion", version, max_term_width = 120)]
pub(crate) struct Cli {
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
    Generate(Box<Generate>),
    /// Measure pictures: how visible the seam and the borders of windows are, and how much each is of one piece
    #[command(args_override_self = true)]
    Evaluate(Box<Evaluate>),
    /// Fetch models, and check them
    #[command(subcommand)]
    Weights(Weights),
    /// Check that `serve` would work with these flags and this environment, and suggest fixes
    #[command(args_override_self = true)]
    Doctor(Box<Doctor>),
    /// Write the documents that are generated from the code into the repository
    #[command(hide = true)]
    Documents {
        /// The root of the repository
        root: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_the_server_has_a_variable() {
        let mut command = Cli::command();
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
            let only_about_one =
                ["_FILE", "_TOKENIZER"].iter().any(|end| variable.ends_with(end)) || variable.contains("SHOW_");
            assert!(!secret || only_about_one || flag.is_hide_env_values_set(), "the help shows {variable}");
            assert!(flag.is_hide_set() || flag.get_help_heading().is_some(), "{name} is in no group of the help");
        }
    }
}
