//! `syncdiffusion evaluate`: figures of pictures, which claims about them can be checked with.
//!
//! A worker that loads only the perceptual network of a model computes them. What always holds: each file that was
//! named, or found in a folder, is a row of the table or has a sentence that says why not.

mod files;
mod measure;
mod report;
mod statistic;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;
use tokio::sync::mpsc::unbounded_channel;

use crate::config::Evaluate;
use crate::signals::{INTERRUPTED, interrupt};
use measure::measure;
use report::Report;

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
    let Some(mut program) = worker.programs(1).into_iter().next() else { bail!("`--device` names no device") };
    program.arguments.push("evaluate".into());
    let (to, messages) = unbounded_channel();
    let process = program.spawn(move |message| _ = to.send(message))?;
    let bar = ProgressBar::new(files.len() as u64);
    bar.enable_steady_tick(Duration::from_millis(100));
    let measured = tokio::select! {
        measured = measure(&process, messages, files, stride, &bar) => Some(measured),
        () = interrupt() => None,
    };
    bar.finish_and_clear();
    drop(process);
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
