//! From a worker's start to the picture: what it reports, and the bar that shows it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use prediction::input::{self, Invalid};
use prediction::worker::{Message, Worker};
use protocol::{Command, Event, Input, Model, Work};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::pictures::Pictures;

/// What a run comes to.
pub(super) enum Outcome {
    Picture(Box<Picture>),
    Refused(Vec<Invalid>),
    Interrupted,
}

pub(super) struct Picture {
    pub(super) input: Input,
    /// RGB of each picture.
    pub(super) pictures: Vec<Vec<u8>>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) seconds: f64,
    pub(super) load_seconds: f64,
    pub(super) work: Work,
    pub(super) peak_memory_bytes: u64,
    pub(super) model: Model,
}

/// Follows a worker from its start to the picture.
pub(super) async fn draw(
    worker: &Worker,
    mut messages: UnboundedReceiver<Message>,
    (inputs, mut pictures): (&Value, Pictures),
    bar: &ProgressBar,
) -> anyhow::Result<Outcome> {
    let job = || "generate".to_owned();
    let (mut loaded, mut input, mut several) = (None, None, BTreeMap::new());
    while let Some(message) = messages.recv().await {
        let (event, rgb) = match message {
            Message::Event(event, bytes) => (event, bytes),
            Message::Line(line) => {
                tracing::info!(target: "worker", "{line}");
                continue;
            }
            Message::Malformed(why) => {
                tracing::warn!(%why, "the worker sent something that is not an event");
                continue;
            }
            Message::Exited(how) => bail!("the worker ended: {how}"),
        };
        match event {
            Event::Loading { model } => {
                // What is left out is what this model can draw.
                let geometry = input::geometry_of(&model);
                match input::parse(inputs, Some(geometry)) {
                    Ok(parsed) => match pictures.misplaced(&parsed.input, geometry) {
                        errors if errors.is_empty() => input = Some(parsed.input),
                        errors => return Ok(Outcome::Refused(errors)),
                    },
                    Err(errors) => return Ok(Outcome::Refused(errors)),
                }
                bar.set_message(format!("loading `{}` on {}", model.name, model.device));
            }
            Event::LoadFailed { error } => bail!("the model cannot be loaded: {error}"),
            Event::Ready { model, load_seconds, .. } => {
                bar.set_message("starting");
                loaded = Some((model, load_seconds));
                let input = input.clone().context("the worker was ready before it named its model")?;
                let (pictures, rgb) = (std::mem::take(&mut pictures.given), std::mem::take(&mut pictures.rgb));
                worker.send_with(Command::Run { job: job(), input: Box::new(input), pictures }, rgb);
            }
            Event::Progress { step, of, .. } => {
                if bar.length() != Some(u64::from(of)) {
                    bar.set_style(style());
                    bar.set_length(u64::from(of));
                }
                bar.set_position(u64::from(step));
            }
            Event::Log { line, .. } => bar.suspend(|| eprintln!("{line}")),
            Event::Failed { error, .. } => bail!("{error}"),
            Event::Malformed { error } => bail!("the worker does not understand this program: {error}"),
            Event::Canceled { .. } => bail!("the worker canceled the job"),
            Event::Picture { n, .. } => _ = several.insert(n, rgb),
            Event::Done { width, height, seconds, work, peak_memory_bytes, .. } => {
                let (model, load_seconds) = loaded.context("the worker was done before it was ready")?;
                let input = input.context("the worker was done before it named its model")?;
                let pictures: Vec<Vec<u8>> =
                    if input.num_outputs == 1 { vec![rgb] } else { several.into_values().collect() };
                if pictures.len() != input.num_outputs as usize {
                    bail!("the worker was done after {} of {} pictures", pictures.len(), input.num_outputs);
                }
                let picture =
                    Picture { input, pictures, width, height, seconds, load_seconds, work, peak_memory_bytes, model };
                return Ok(Outcome::Picture(Box::new(picture)));
            }
            Event::Batch { .. } | Event::Preview { .. } | Event::Evaluator { .. } | Event::Evaluated { .. } => {}
        }
    }
    bail!("the worker ended without a message")
}

/// The bar of the denoising steps.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len} steps [{elapsed_precise}<{eta_precise}]")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
