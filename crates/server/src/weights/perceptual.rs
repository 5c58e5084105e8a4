//! `weights perceptual`: the network that compares windows, for a model that was not fetched here.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use weights::Progress;

use super::progress::{Bars, Lines};
use crate::config::Perceptual;
use crate::signals::{INTERRUPTED, interrupt};

pub(super) async fn run(flags: &Perceptual) -> anyhow::Result<ExitCode> {
    let dir = dir(flags)?;
    let shown = dir.join("perceptual");
    let shown = shown.display();
    if weights::has_perceptual(&dir) && flags.file.is_none() {
        println!("nothing to do; `{shown}` is there");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &flags.file {
        weights::copy_perceptual(file, &dir)?;
    } else {
        let (hub, source) = (flags.source.hub()?, flags.source.perceptual()?);
        let bars: Box<dyn Progress> =
            if io::stderr().is_terminal() { Box::new(Bars::default()) } else { Box::new(Lines::default()) };
        tokio::select! {
            fetched = weights::fetch_perceptual(&hub, &source, &dir, &*bars) => fetched?,
            () = interrupt() => {
                drop(bars);
                eprintln!("interrupted; what was received is kept, and the same command resumes the fetch");
                return Ok(INTERRUPTED.into());
            }
        }
    }
    println!(
        "wrote `{shown}`\n\
         VGG16 is torchvision's (BSD-3-Clause), the layers of LPIPS are Richard Zhang's and others' (BSD-2-Clause)."
    );
    Ok(ExitCode::SUCCESS)
}

/// The folder in which `perceptual/` is made.
fn dir(flags: &Perceptual) -> anyhow::Result<PathBuf> {
    let Some(model) = &flags.model else { return Ok(flags.models.home().shared()?) };
    if model.is_dir() {
        return Ok(model.clone());
    }
    if model.is_file() {
        let beside = model.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Ok(beside.to_owned());
    }
    bail!(
        "there is no folder or file `{}`; name a model, or nothing to keep the network for all of them",
        model.display()
    )
}
