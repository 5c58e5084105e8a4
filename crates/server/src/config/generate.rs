//! Flags of `generate`: the inputs as the table has them, the worker, and the file.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};
use prediction::input::{Kind, TABLE};
use serde_json::{Map, Value};

use super::worker::WorkerArgs;

#[derive(Debug, Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) inputs: Inputs,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
    /// Where to write the picture; `.jpg` and `.webp` make one of that format, unless `--output-format` says which. By
    /// default `out.png`, or `out` with the end of the format; several have numbers, as `out-0.png`
    #[arg(long, help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,
    /// Write only pixels into the file: not the input, not the model, and not that a model made it
    #[arg(long, help_heading = "Output")]
    pub(crate) no_metadata: bool,
    /// Print one JSON object with times and counts as the last line of stdout
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// The inputs that are given, as the JSON of a request would have them. Each row of the table is a flag.
#[derive(Debug, Default)]
pub(crate) struct Inputs(pub(crate) Map<String, Value>);

impl Args for Inputs {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Input").args(TABLE.iter().map(|field| {
            let arg = Arg::new(field.name).long(field.flag()).help(field.help()).value_name(field.kind.placeholder());
            match field.kind {
                Kind::Boolean => arg.num_args(0..=1).default_missing_value("true"),
                Kind::Texts { .. } => arg.allow_hyphen_values(true).action(ArgAction::Append),
                Kind::Picture => arg.value_hint(ValueHint::FilePath),
                _ => arg.allow_hyphen_values(true),
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Inputs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut inputs = Self::default();
        inputs.update_from_arg_matches(matches)?;
        Ok(inputs)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for field in &TABLE {
            if let Kind::Texts { .. } = field.kind {
                if let Some(words) = matches.get_many::<String>(field.name) {
                    self.0.insert(field.name.to_owned(), words.map(|word| field.read(word)).collect());
                }
            } else if let Some(word) = matches.get_one::<String>(field.name) {
                self.0.insert(field.name.to_owned(), field.read(word));
            }
        }
        Ok(())
    }
}
