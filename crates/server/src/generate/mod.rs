//! `syncdiffusion generate`: one picture or several, without a server.
//!
//! Inputs are refused in the words of the server. What always holds: the file named by `--output` is whole or
//! untouched, and an interrupted run leaves nothing behind.

mod draw;
mod file;
mod pictures;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use prediction::given_pictures::told;
use prediction::input::{self, Default as InputDefault, Geometry, Invalid};
use prediction::output::{self, Metadata};
use protocol::Work;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::unbounded_channel;

use crate::config::Generate;
use crate::evaluate;
use crate::signals::{INTERRUPTED, interrupt};
use draw::{Outcome, Picture, draw};
use pictures::Pictures;

/// Exit code for inputs that are refused, as for flags that are.
const REFUSED: u8 = 2;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    seconds: f64,
    load_seconds: f64,
    seed: u64,
    /// The only file, or the first.
    output: &'a Path,
    /// All files, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<&'a [PathBuf]>,
    width: u32,
    height: u32,
    peak_memory_bytes: u64,
    device: &'a str,
    dtype: &'a str,
    work: Work,
    /// With `--evaluate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<evaluate::Of>,
}

pub(crate) async fn run(generate: Generate) -> anyhow::Result<ExitCode> {
    let Generate { inputs, mut worker, output, no_metadata, json } = generate;
    // The geometry of the embedded model is known before its worker reports it, so errors are found before any work.
    let known = (worker.model == "demo").then(Geometry::default);
    let (mut inputs, output) = file::named(inputs.0, output)?;
    let pictures = match Pictures::read(&mut inputs) {
        Ok(pictures) => pictures,
        Err(errors) => return Ok(refuse(&errors)),
    };
    let mut inputs = Value::Object(inputs);
    let (evaluate, count) = match input::parse(&inputs, known) {
        Err(errors) => return Ok(refuse(&errors)),
        Ok(parsed) => {
            let errors = known.map(|known| pictures.misplaced(&parsed.input, known)).unwrap_or_default();
            if !errors.is_empty() {
                return Ok(refuse(&errors));
            }
            (parsed.input.evaluate, parsed.input.num_outputs)
        }
    };
    // The file is, by a worker that does nothing else, and so by the same numbers as with `syncdiffusion evaluate`.
    if let Some(inputs) = inputs.as_object_mut() {
        inputs.remove("evaluate");
    }
    if evaluate && count > 1 {
        bail!("`--evaluate` is for one picture; leave it out, and run `syncdiffusion evaluate` on the files");
    }
    let hashes = pictures.hashes.clone();
    check_output(&output)?;
    worker.resolve()?;
    let Some(program) = worker.programs(1).into_iter().next() else { bail!("`--device` names no device") };
    let (to, messages) = unbounded_channel();
    let process = program.spawn(move |message| _ = to.send(message))?;
    let bar = ProgressBar::new_spinner().with_message(format!("loading `{}`", worker.model));
    bar.enable_steady_tick(Duration::from_millis(100));
    let drawn = tokio::select! {
        drawn = draw(&process, messages, (&inputs, pictures), &bar) => drawn,
        () = interrupt() => Ok(Outcome::Interrupted),
    };
    bar.finish_and_clear();
    drop(process);
    let picture = match drawn? {
        Outcome::Picture(picture) => picture,
        Outcome::Refused(errors) => return Ok(refuse(&errors)),
        Outcome::Interrupted => {
            eprintln!("interrupted; nothing was written");
            return Ok(INTERRUPTED.into());
        }
    };
    let Picture { input, pictures, width, height, seconds, load_seconds, work, peak_memory_bytes, model } = *picture;
    let files = file::numbered(&output, input.num_outputs);
    for (n, (rgb, file)) in (0..).zip(pictures.into_iter().zip(&files)) {
        let input = told(&input.of_picture(n), &hashes);
        let metadata = (!no_metadata).then(|| Metadata::new(&input, Some(&model)));
        let encoded = output::encode(&rgb, (width, height), &input, metadata.as_ref())?;
        output::save(file, &encoded).with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    let figures = if evaluate {
        tokio::select! {
            figures = evaluate::of(&worker, &output, input.stride) => Some(figures?),
            () = interrupt() => {
                eprintln!("interrupted; `{}` is written, but not evaluated", output.display());
                return Ok(INTERRUPTED.into());
            }
        }
    } else {
        None
    };
    if json {
        let (device, dtype) = (model.device.as_str(), model.dtype.as_str());
        let seed = input.seed;
        let report = Report {
            seconds,
            load_seconds,
            seed,
            output: &files[0],
            outputs: (files.len() > 1).then_some(&files[..]),
            width,
            height,
            peak_memory_bytes,
            device,
            dtype,
            work,
            figures,
        };
        println!("{}", serde_json::to_string(&report)?);
    } else {
        for (n, file) in (0..).zip(&files) {
            let (path, seed) = (file.display(), input.of_picture(n).seed);
            println!("wrote `{path}`: {width}x{height}, seed {seed}, {seconds:.1} s on {}", model.device);
        }
        if let Some(figures) = figures {
            println!("{figures}");
        }
    }
    Ok(ExitCode::SUCCESS)
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
fn check_output(path: &Path) -> anyhow::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.file_name().is_none() || path.is_dir() {
        bail!("`{}` is not the name of a file; choose another `--output`", path.display());
    }
    if !dir.is_dir() {
        bail!("there is no folder `{}`; make it, or choose another `--output`", dir.display());
    }
    Ok(())
}
