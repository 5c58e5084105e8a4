//! Variables of flags: an empty one is an unset one, and a wrong value is named with the variable it came from.

use std::ffi::OsStr;
use std::io::Write as _;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, Error, FromArgMatches as _};

use crate::cli::Cli;

/// Its empty text is refused, not ignored: a server that should need tokens would need none.
const NEVER_EMPTY: &str = "SYNCDIFFUSION_API_TOKEN";

/// Reads the command line and the environment, or ends the process with what is wrong.
pub(crate) fn parse(command: Command) -> Cli {
    let command = without_empty(command);
    let known = command.clone();
    let matches = command.try_get_matches().unwrap_or_else(|error| fail(&known, &error));
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| fail(&known, &error))
}

/// Takes the variables from flags where they are empty, as Compose and Helm make them of `${NAME:-}`.
fn without_empty(command: Command) -> Command {
    let is_empty = |name: &OsStr| name != NEVER_EMPTY && std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty)
}

fn fail(command: &Command, error: &Error) -> ! {
    let _ = error.print();
    if let Some(name) = variable(command, error) {
        let _ = writeln!(std::io::stderr(), "note: the value comes from the variable {name}");
    }
    std::process::exit(error.exit_code());
}

/// The variable that a wrong value came from, if it was one.
fn variable(command: &Command, error: &Error) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let long = flag.split([' ', '=']).next()?.strip_prefix("--")?;
    let is_given = |word: String| word.strip_prefix("--").is_some_and(|word| word.split('=').next() == Some(long));
    if std::env::args_os().filter_map(|word| word.into_string().ok()).any(is_given) {
        return None;
    }
    let name = find(command, long)?.get_env()?.to_str()?.to_owned();
    std::env::var_os(&name).map(|_| name)
}

fn find<'a>(command: &'a Command, long: &str) -> Option<&'a Arg> {
    let of = command.get_arguments().find(|arg| arg.get_long() == Some(long));
    of.or_else(|| command.get_subcommands().find_map(|command| find(command, long)))
}
