//! `syncdiffusion evaluate`: figures of pictures, which claims about them can be checked with.
//!
//! A worker that loads only the perceptual network of a model computes them. What always holds: each file that was
//! named, or found in a folder, is a row of the table or has a sentence that says why not.

mod files;
mod measure;
mod report;
mod statistic;
mod table;

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;
use protocol::Net;
use serde::Serialize;
use tokio::sync::mpsc::unbounded_channel;

use crate::config::{Evaluate, WorkerArgs};
use crate::signals::{INTERRUPTED, interrupt};
use measure::{Measured, measure};
use report::{Each, FIGURES, Report};

/// Evaluates, prints, and fails if a file could not be evaluated.
pub(crate) async fn run(evaluate: Evaluate) -> anyhow::Result<ExitCode> {
    let Evaluate { paths, stride, json, mut worker } = evaluate;
    let (files, problems) = files::find(&paths);
    if files.is_empty() {
        for problem in &problems {
            eprintln!("{problem}");
        }
        bail!("there is nothing to evaluate; name PNGs, or folders that hold some");
    }
    worker.resolve()?;
    let bar = ProgressBar::new(files.len() as u64);
    bar.enable_steady_tick(Duration::from_millis(100));
    let measured = tokio::select! {
        measured = measure_by(&worker, files, stride, &bar) => Some(measured),
        () = interrupt() => None,
    };
    bar.finish_and_clear();
    let Some(measured) = measured else {
        eprintln!("interrupted; nothing was printed");
        return Ok(INTERRUPTED.into());
    };
    let measured = measured?;
    let report = Report::new(measured.net, measured.pictures, [problems, measured.problems].concat());
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else if !report.pictures.is_empty() {
        print!("{}", table::print(&report));
    }
    for problem in &report.problems {
        eprintln!("{problem}");
    }
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The figures of one picture whose windows are `stride` apart, by a worker of a model that was resolved.
///
/// # Errors
/// If the worker fails, or if the picture cannot be evaluated.
pub(crate) async fn of(worker: &WorkerArgs, picture: &Path, stride: u32) -> anyhow::Result<Of> {
    let files = vec![picture.to_owned()];
    let Measured { net, mut pictures, problems } =
        measure_by(worker, files, Some(stride), &ProgressBar::hidden()).await?;
    match pictures.pop() {
        Some(picture) => Ok(Of { figures: picture.figures, net }),
        None => bail!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

/// The figures of a picture, and the network that compared its squares.
#[derive(Debug, Serialize)]
pub(crate) struct Of {
    #[serde(flatten)]
    figures: Each<f64>,
    net: Net,
}

impl Display for Of {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for ((_, name), figure) in FIGURES.iter().zip(self.figures.all()) {
            if let Some(figure) = figure {
                write!(f, "{name} {figure:.3}, ")?;
            }
        }
        f.write_str(&table::named(&self.net))
    }
}

/// Starts a worker that evaluates, and has it measure files.
async fn measure_by(
    worker: &WorkerArgs,
    files: Vec<PathBuf>,
    stride: Option<u32>,
    bar: &ProgressBar,
) -> anyhow::Result<Measured> {
    let Some(mut program) = worker.programs(1).into_iter().next() else { bail!("`--device` names no device") };
    program.arguments.push("evaluate".into());
    let (to, messages) = unbounded_channel();
    let process = program.spawn(move |message| _ = to.send(message))?;
    measure(&process, messages, files, stride, bar).await
}
