//! `weights verify`: compares a model with its lock.

use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{HumanBytes, ProgressBar};
use weights::Lock;

use super::progress::style;
use crate::config::Verify;

pub(super) fn run(flags: &Verify) -> anyhow::Result<ExitCode> {
    let named = flags.bundle.to_str().and_then(|name| flags.models.home().bundle(name).ok());
    let named = named.filter(|dir| dir.join(weights::LOCK).is_file());
    let dir = named.unwrap_or_else(|| flags.bundle.clone());
    let lock = Lock::read(&dir)?;
    let bar = ProgressBar::new(lock.size()).with_style(style("{bar:40} {bytes}/{total_bytes} {wide_msg}"));
    let mut read = 0;
    let differences = weights::verify(&dir, |entry| {
        bar.set_position(read);
        bar.set_message(entry.path.clone());
        read += entry.size;
    });
    bar.finish_and_clear();
    let differences = differences.with_context(|| format!("cannot check `{}`", dir.display()))?;
    let (dir, files) = (dir.display(), lock.files.len());
    if differences.is_empty() {
        let Lock { repo, commit, .. } = &lock;
        println!("`{dir}` is right: {files} files, {}, of {repo} at {commit}", HumanBytes(lock.size()));
        return Ok(ExitCode::SUCCESS);
    }
    for difference in &differences {
        println!("{difference}");
    }
    eprintln!(
        "error: `{dir}` differs from its lock; `syncdiffusion weights fetch` repairs it, and extra files can be removed"
    );
    Ok(ExitCode::FAILURE)
}
