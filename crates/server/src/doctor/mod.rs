//! `syncdiffusion doctor`: looks whether `serve` with the same flags and environment would do, and says what to do if not.
//!
//! Nothing is changed, started or loaded beyond a worker that tells what its machine has, and a file that is written and removed to see
//! whether that can be done.

mod checks;
mod worker;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::config::Serve;

/// Flags of `doctor`: those of `serve`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    serve: Serve,
    /// Print one JSON object
    #[arg(long, help_heading = "Report")]
    json: bool,
}

/// How it stands with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// The server works, but perhaps not as it is meant to.
    Warning,
    /// The server does not work.
    Problem,
}

/// What was found of one thing.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn problem(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Problem, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Looks at everything, prints what was found, and fails if there is a problem.
pub(crate) async fn run(doctor: Doctor) -> anyhow::Result<ExitCode> {
    let Doctor { mut serve, json } = doctor;
    let (model, bytes) = checks::model(&mut serve);
    let mut checks = worker::checks(&serve, bytes).await;
    checks.push(model);
    checks.extend([checks::data(&serve), checks::port(&serve), checks::doors(&serve), checks::files(&serve)]);
    let well = checks.iter().all(|check| check.verdict != Verdict::Problem);
    if json {
        println!("{}", serde_json::json!({ "ok": well, "checks": checks }));
    } else {
        print(&checks, well);
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line for each, and one for what to do.
fn print(checks: &[Check], well: bool) {
    for Check { name, verdict, found, advice } in checks {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        };
        println!("{verdict:<8} {name:<9} {found}");
        if let Some(advice) = advice {
            println!("{:<8} {:<9} -> {advice}", "", "");
        }
    }
    println!();
    println!("{}", if well { "`syncdiffusion serve` should work." } else { "`syncdiffusion serve` would not work." });
}
