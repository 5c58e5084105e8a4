//! What a check found, and how it is printed.

use serde::Serialize;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// The server works, but perhaps not as intended.
    Warning,
    /// The server does not work.
    Problem,
}

/// One check.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What to do.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    pub(super) fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    pub(super) fn problem(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Problem, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Prints a line for each check, and one for what to do.
pub(super) fn print(checks: &[Check], ok: bool) {
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
    println!("{}", if ok { "`syncdiffusion serve` should work." } else { "`syncdiffusion serve` would not work." });
}
