//! `weights fetch`: from the flags to what is fetched, and what to do with it.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use indicatif::HumanBytes;
use weights::{FetchRequest, Fetched, Progress, Source, Variant};

use super::progress::{Bars, Lines};
use crate::config::{Fetch, Smaller};
use crate::signals::{INTERRUPTED, interrupt};

/// The model whose sources are known.
const KNOWN: &str = "sd2";

pub(super) async fn run(flags: &Fetch) -> anyhow::Result<ExitCode> {
    let request = request(flags)?;
    let hub = flags.source.hub()?;
    let shown: Box<dyn Progress> =
        if io::stderr().is_terminal() { Box::new(Bars::default()) } else { Box::new(Lines::default()) };
    let fetched = tokio::select! {
        fetched = weights::fetch(&hub, &request, &*shown) => fetched,
        () = interrupt() => {
            drop(shown);
            eprintln!("interrupted; what was received is kept, and the same command resumes the fetch");
            return Ok(INTERRUPTED.into());
        }
    };
    drop(shown);
    report(flags, &fetched?, &request.dir);
    Ok(ExitCode::SUCCESS)
}

fn request(flags: &Fetch) -> anyhow::Result<FetchRequest> {
    let Fetch { name, from, to, .. } = flags;
    let usual = flags.models.home().bundle(name);
    let source = |text: &str| Source::parse(text, flags.revision.as_deref());
    let sources = match from {
        Some(from) => vec![source(from)?],
        None if name == KNOWN => weights::SD2.into_iter().map(source).collect::<Result<_, _>>()?,
        None => bail!(
            "`{name}` has no known source; name one with `--from OWNER/NAME`, or fetch `{KNOWN}`, which needs none"
        ),
    };
    let variant = flags.variant.map_or(Variant::Full, |Smaller::Fp16| Variant::Fp16);
    let dir = to.clone().map_or(usual, Ok)?;
    Ok(FetchRequest { dir, sources, perceptual: flags.source.perceptual()?, variant })
}

/// Prints where the model is, under which terms, and how to serve it.
fn report(flags: &Fetch, fetched: &Fetched, dir: &Path) {
    let Fetched { lock, changed } = fetched;
    let done = if *changed == 0 { "nothing to fetch; it is" } else { "fetched" };
    let (size, commit) = (HumanBytes(lock.size()), &lock.commit);
    let page = format!("{}/{}", lock.endpoint.trim_end_matches('/'), lock.repo);
    println!("{done} in `{}`: {} files, {size}, of {page} at {commit}", dir.display(), lock.files.len());
    println!();
    if flags.from.is_none() {
        println!(
            "The weights of Stable Diffusion 2 are under the CreativeML Open RAIL++-M License:\n\
             https://github.com/Stability-AI/stablediffusion/blob/main/LICENSE-MODEL"
        );
    } else {
        println!(
            "The weights are under the licence that {page} names.\n\
             Those that come from Stable Diffusion 2 are under the CreativeML Open RAIL++-M License:\n\
             https://github.com/Stability-AI/stablediffusion/blob/main/LICENSE-MODEL"
        );
    }
    println!(
        "Its use restrictions (Attachment A: nothing unlawful, harmful to minors, deceiving, harassing or \
         discriminating,\n\
         among others) bind you, and you have to pass them on to those who use the model through you.\n\
         VGG16 is torchvision's (BSD-3-Clause), the layers of LPIPS are Richard Zhang's and others' (BSD-2-Clause)."
    );
    println!();
    let model = if flags.to.is_some() { dir.display().to_string() } else { flags.name.clone() };
    // A bare name would be looked for among the fetched models.
    let relative = flags.to.is_some() && !model.contains('/');
    println!("Serve it: syncdiffusion serve --model {}{model}", if relative { "./" } else { "" });
}
