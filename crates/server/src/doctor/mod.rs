//! `syncdiffusion doctor`: checks that `serve` would work with the same flags and environment, and suggests fixes.
//!
//! Nothing is changed, started or loaded, except for a worker that reports what its machine has, and a file (in a
//! bucket an object) that is written and removed again to see whether that is possible.

mod checks;
mod report;
mod worker;

use std::process::ExitCode;

use crate::config::Doctor;
use report::{Verdict, print};

/// Makes all checks, prints them, and fails if there is a problem.
pub(crate) async fn run(doctor: Doctor) -> anyhow::Result<ExitCode> {
    let Doctor { mut serve, json } = doctor;
    let mut checks = if serve.is_without_workers() {
        Vec::new()
    } else {
        let (model, bytes) = checks::model(&mut serve);
        worker::checks(&serve, model, bytes).await
    };
    checks.push(checks::data(&serve));
    checks.extend(checks::pictures(&serve));
    checks.extend([checks::port(&serve), checks::access(&serve), checks::files(&serve)]);
    let ok = checks.iter().all(|check| check.verdict != Verdict::Problem);
    if json {
        println!("{}", serde_json::json!({ "ok": ok, "checks": checks }));
    } else {
        print(&checks, ok);
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
