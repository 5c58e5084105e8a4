//! `syncdiffusion generate`: one picture, without a server.
//!
//! The flags come from the table of inputs and are refused with the words of the server. What always holds: the file named by
//! `--output` is whole or untouched, and an interrupted run leaves nothing behind.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use indicatif::{ProgressBar, ProgressStyle};
use prediction::input::{self, Default as InputDefault, Geometry, Invalid, Kind, TABLE};
use prediction::output::{self, Metadata};
use prediction::worker::{Message, Worker};
use protocol::{Event, Input, Model, Work};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Exit code for inputs that are refused, as for flags that are.
const REFUSED: u8 = 2;
/// Exit code after an interrupt, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Flags of `generate`.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    inputs: Words,
    #[command(flatten)]
    crew: crate::config::Crew,
    /// Where to write the PNG
    #[arg(long, default_value = "out.png", help_heading = "Output")]
    output: PathBuf,
    /// Write nothing but pixels into the PNG: no input, no model, and not that a model made it
    #[arg(long, help_heading = "Output")]
    no_metadata: bool,
    /// Print one JSON object with times and counts as the last line of stdout
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// The inputs as words of the command line, read like the JSON of a request.
#[derive(Debug, Default)]
struct Words(Map<String, Value>);

impl Args for Words {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Input").args(TABLE.iter().map(|field| {
            let arg =
                Arg::new(field.name).long(field.flag()).help(field.help()).value_name(field.kind.name().to_uppercase());
            match field.kind {
                Kind::Boolean => arg.num_args(0..=1).default_missing_value("true"),
                _ => arg.allow_hyphen_values(true),
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Words {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut words = Self::default();
        words.update_from_arg_matches(matches)?;
        Ok(words)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for field in &TABLE {
            if let Some(word) = matches.get_one::<String>(field.name) {
                self.0.insert(field.name.to_owned(), field.read(word));
            }
        }
        Ok(())
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    seconds: f64,
    load_seconds: f64,
    seed: u64,
    output: &'a Path,
    width: u32,
    height: u32,
    peak_memory_bytes: u64,
    device: &'a str,
    dtype: &'a str,
    work: Work,
}

/// Makes the picture.
pub(crate) async fn run(generate: Generate) -> anyhow::Result<ExitCode> {
    let Generate { inputs: Words(words), mut crew, output, no_metadata, json } = generate;
    // The sizes of the embedded model are known before its worker tells them, so that everything is refused before any work.
    let known = (crew.model == "demo").then(Geometry::default);
    let input = match input::parse(&Value::Object(words), known) {
        Ok(parsed) => parsed.input,
        Err(errors) => return Ok(refuse(&errors)),
    };
    check_place(&output)?;
    crew.resolve()?;
    let Some(program) = crew.programs(1).into_iter().next() else { bail!("`--device` names no device") };
    let (to, messages) = unbounded_channel();
    let worker = program.spawn(move |message| _ = to.send(message))?;
    let bar = ProgressBar::new_spinner().with_message(format!("loading `{}`", crew.model));
    bar.enable_steady_tick(Duration::from_millis(100));
    let made = tokio::select! {
        made = make(&worker, messages, &input, &bar) => made,
        () = interrupt() => Ok(Made::Interrupted),
    };
    bar.finish_and_clear();
    drop(worker);
    let picture = match made? {
        Made::Picture(picture) => picture,
        Made::Refused(errors) => return Ok(refuse(&errors)),
        Made::Interrupted => {
            eprintln!("interrupted; nothing was written");
            return Ok(INTERRUPTED.into());
        }
    };
    let Picture { rgb, width, height, seconds, load_seconds, work, peak_memory_bytes, model } = *picture;
    let metadata = (!no_metadata).then(|| Metadata::new(&input, Some(&model)));
    let png = output::picture(&rgb, width, height, metadata.as_ref())?;
    save(&output, &png).with_context(|| format!("cannot write `{}`", output.display()))?;
    if json {
        let (device, dtype) = (model.device.as_str(), model.dtype.as_str());
        let seed = input.seed;
        let report = Report {
            seconds,
            load_seconds,
            seed,
            output: &output,
            width,
            height,
            peak_memory_bytes,
            device,
            dtype,
            work,
        };
        println!("{}", serde_json::to_string(&report)?);
    } else {
        let (path, seed) = (output.display(), input.seed);
        println!("wrote `{path}`: {width}x{height}, seed {seed}, {seconds:.1} s on {}", model.device);
    }
    Ok(ExitCode::SUCCESS)
}

/// What came of the work.
enum Made {
    Picture(Box<Picture>),
    Refused(Vec<Invalid>),
    Interrupted,
}

struct Picture {
    rgb: Vec<u8>,
    width: u32,
    height: u32,
    seconds: f64,
    load_seconds: f64,
    work: Work,
    peak_memory_bytes: u64,
    model: Model,
}

/// Takes a worker from its start to the picture.
async fn make(
    worker: &Worker,
    mut messages: UnboundedReceiver<Message>,
    input: &Input,
    bar: &ProgressBar,
) -> anyhow::Result<Made> {
    let job = || "generate".to_owned();
    let mut loaded = None;
    while let Some(message) = messages.recv().await {
        let (event, rgb) = match message {
            Message::Event(event, bytes) => (event, bytes),
            Message::Line(line) => {
                tracing::info!(target: "worker", "{line}");
                continue;
            }
            Message::Malformed(why) => {
                tracing::warn!(%why, "the worker sent something that is not an event");
                continue;
            }
            Message::Exited(how) => bail!("the worker ended: {how}"),
        };
        match event {
            Event::Loading { model } => {
                if let Err(errors) = input::validate::check_geometry(input, input::geometry_of(&model)) {
                    return Ok(Made::Refused(errors));
                }
                bar.set_message(format!("loading `{}` on {}", model.name, model.device));
            }
            Event::LoadFailed { error } => bail!("the model cannot be loaded: {error}"),
            Event::Ready { model, load_seconds, .. } => {
                bar.set_message("starting");
                loaded = Some((model, load_seconds));
                worker.send(protocol::Command::Run { job: job(), input: input.clone() });
            }
            Event::Progress { step, of, .. } => {
                if bar.length() != Some(u64::from(of)) {
                    bar.set_style(style());
                    bar.set_length(u64::from(of));
                }
                bar.set_position(u64::from(step));
            }
            Event::Log { line, .. } => bar.suspend(|| eprintln!("{line}")),
            Event::Failed { error, .. } => bail!("{error}"),
            Event::Malformed { error } => bail!("the worker does not understand this program: {error}"),
            Event::Canceled { .. } => bail!("the worker gave up"),
            Event::Done { width, height, seconds, work, peak_memory_bytes, .. } => {
                let (model, load_seconds) = loaded.context("the worker was done before it was ready")?;
                let picture = Picture { rgb, width, height, seconds, load_seconds, work, peak_memory_bytes, model };
                return Ok(Made::Picture(Box::new(picture)));
            }
            Event::Batch { .. } => {}
        }
    }
    bail!("the worker ended without a word")
}

/// The bar of the denoising steps.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len} steps [{elapsed_precise}<{eta_precise}]")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Prints why inputs are refused.
fn refuse(errors: &[Invalid]) -> ExitCode {
    for Invalid { field, message, .. } in errors {
        eprintln!("{field}: {message}");
    }
    let required = errors
        .iter()
        .any(|error| input::table::find(&error.field).is_some_and(|field| field.default == InputDefault::Required));
    if required {
        eprintln!("say what to draw: `syncdiffusion generate --prompt \"a mountain range at twilight\"`");
    }
    REFUSED.into()
}

/// Checks, before any work, that a file can be written.
fn check_place(path: &Path) -> anyhow::Result<()> {
    let dir = folder(path);
    if path.file_name().is_none() || path.is_dir() {
        bail!("`{}` is not the name of a file; choose another `--output`", path.display());
    }
    if !dir.is_dir() {
        bail!("there is no folder `{}`; make it, or choose another `--output`", dir.display());
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file whole, or not at all.
fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder(path).join(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = fs::File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| _ = fs::remove_file(&temporary))
}

/// Waits for ctrl-c or SIGTERM.
pub(crate) async fn interrupt() {
    let term = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut term) => _ = term.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = term => {}
    }
}
