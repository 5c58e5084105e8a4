//! Documents that are generated from the code: `syncdiffusion documents` writes them, and a test fails when one of them
//! is out of date.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};

use crate::cli::Cli;
use crate::{openapi, telemetry};

/// What a document should be, given what it is; `None` if it lacks the comments to write between.
type ShouldBe = fn(&str) -> Option<String>;

const DOCUMENTS: [(&str, ShouldBe); 3] = [
    ("openapi.yaml", |_| Some(openapi::as_yaml())),
    ("docs/cli.md", |_| Some(manual())),
    ("docs/operating.md", |now| between(now, "metrics", &telemetry::markdown())),
];

/// Writes all that are out of date, below the root of the repository.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    for (name, should_be) in DOCUMENTS {
        let path = root.join(name);
        let now = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read `{name}`"))?,
        };
        let new = should_be(&now).with_context(|| format!("`{name}` lacks the comments between which to write"))?;
        if new != now {
            fs::write(&path, new).with_context(|| format!("cannot write `{name}`"))?;
            println!("wrote {name}");
        }
    }
    Ok(())
}

/// Replaces the text between two comments.
fn between(text: &str, name: &str, content: &str) -> Option<String> {
    let (start, end) = (format!("<!-- {name}: written by `make docs` -->\n"), format!("<!-- end of {name} -->"));
    let from = text.find(&start)? + start.len();
    let to = from + text[from..].find(&end)?;
    Some(format!("{}\n{content}\n{}", &text[..from], &text[to..]))
}

/// The help of every command.
fn manual() -> String {
    let mut text = String::from("# The command line\n\nWritten by `make docs`: what `--help` says of each command.\n");
    let mut command = Cli::command().term_width(110).mut_args(|arg| arg.hide_env_values(true));
    command.build();
    describe(&command, &mut text);
    text
}

fn describe(command: &Command, text: &mut String) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.clone().mut_args(|arg| arg.hide_env_values(true)).term_width(110).render_long_help();
    let _ = write!(text, "\n## {name}\n\n```\n");
    for line in help.to_string().lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push_str("```\n");
    for command in command.get_subcommands() {
        describe(command, text);
    }
}

#[cfg(test)]
mod tests {
    use prediction::input::table::{Kind, TABLE};

    use super::*;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    #[test]
    fn the_documents_are_up_to_date() {
        for (name, should_be) in DOCUMENTS {
            let now = fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_default();
            assert!(should_be(&now).as_deref() == Some(&now), "`{name}` is out of date; run `make docs`");
        }
    }

    /// The table of inputs is written by hand; names, defaults and bounds must be those of the code.
    #[test]
    fn the_readme_has_every_input() {
        let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap_or_default();
        for field in &TABLE {
            let name = format!("`{}`", field.name);
            let first = |line: &&str| line.split('|').nth(1).is_some_and(|cell| cell.contains(&name));
            let row = readme.lines().find(first).unwrap_or_default();
            let default = field.default.value().map_or("required".to_owned(), |value| match value {
                serde_json::Value::String(text) => format!("`\"{text}\"`"),
                other => other.to_string(),
            });
            let words = if let Kind::Choice(words) = field.kind { words } else { &[] };
            assert!(words.iter().all(|word| row.contains(&format!("`{word}`"))), "{name} {words:?}: `{row}`");
            let (minimum, maximum) = field.kind.bounds();
            for wanted in [Some(default), minimum.map(|n| n.to_string()), maximum.map(|n| n.to_string())] {
                assert!(wanted.as_deref().is_none_or(|wanted| row.contains(wanted)), "{name} {wanted:?}: `{row}`");
            }
        }
    }
}
