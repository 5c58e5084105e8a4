//! `syncdiffusion-worker evaluate`: figures of finished pictures, by the perceptual network alone.

use geometry::{Ends, Geometry};
use panorama::Picture;
use protocol::{Command, Event, Figures, Net, Windows};
use sd2::lpips::Lpips;
use tch::Kind;

use crate::commands::{self, Message};
use crate::device::{self, DeviceChoice, DtypeChoice};
use crate::events::Events;
use crate::failure::{catch, is_sticky};
use crate::model::ModelOptions;

/// Loads the network and evaluates pictures until stdin ends.
pub(crate) fn run(
    model: &ModelOptions,
    device: DeviceChoice,
    dtype: DtypeChoice,
    threads: usize,
    events: &Events,
) -> anyhow::Result<()> {
    let commands = commands::read_stdin();
    let bundle = model.open()?;
    // Figures are compared with those of others, so by default they are as exact as they can be.
    let dtype = if dtype == DtypeChoice::Auto { DtypeChoice::Of(Kind::Float) } else { dtype };
    let placement = device::place(device, dtype)?;
    let geometry = sd2::read_geometry(&bundle)?;
    let lpips = Lpips::load(&bundle, placement)?;
    let net = Net {
        model: model.model.clone(),
        channels: lpips.channels().into_iter().map(|channels| channels as u32).collect(),
        version: model.perceptual_version(&bundle)?,
    };
    tch::set_num_threads(threads as i32);
    events.send(&Event::Evaluator { net, window: geometry.window, vae_factor: geometry.vae_factor });
    for message in commands {
        match message {
            Message::Command(Command::Evaluate { job, width, height, windows }, rgb) => {
                let done = evaluate(&lpips, geometry, windows, &Picture { width, height, rgb });
                let fatal = done.as_ref().is_err_and(|error| is_sticky(error));
                events.send(&match done {
                    Ok(figures) => Event::Evaluated { job, figures },
                    Err(error) => Event::Failed { job, error, fatal },
                });
            }
            Message::Command(Command::Run { job, .. }, _) => {
                let error = "this worker evaluates pictures and draws none".to_owned();
                events.send(&Event::Failed { job, error, fatal: false });
            }
            // A picture takes seconds: nothing is there to cancel or to show.
            Message::Command(Command::Cancel { .. } | Command::Preview { .. }, _) => {}
            Message::Command(Command::Shutdown, _) => return Ok(()),
            Message::Malformed(error) => events.send(&Event::Malformed { error }),
        }
    }
    Ok(())
}

fn ends(windows: Windows) -> Ends {
    Ends::of(windows.loop_closure, windows.seamless)
}

/// The figures of a picture, or why it has none.
fn evaluate(lpips: &Lpips, geometry: Geometry, windows: Option<Windows>, picture: &Picture) -> Result<Figures, String> {
    let wanted = 3 * u64::from(picture.width) * u64::from(picture.height);
    if picture.rgb.len() as u64 != wanted || wanted == 0 {
        let (Picture { width, height, .. }, bytes) = (picture, picture.rgb.len());
        return Err(format!("a picture of {width}x{height} takes {wanted} bytes, not {bytes}"));
    }
    let size = (picture.width, picture.height);
    let layout = windows.map(|windows| geometry.layout(size, windows.stride, ends(windows)));
    catch(|| panorama::figures(lpips, geometry, layout, picture)).and_then(checked)
}

/// Figures as they are sent, if they are numbers.
pub(crate) fn checked(figures: panorama::Figures) -> Result<Figures, String> {
    let panorama::Figures { seam, borders, row_borders, intra_lpips } = figures;
    if intra_lpips.is_some_and(|distance| !distance.is_finite()) {
        return Err("the numbers of the perceptual network are not finite; try `--dtype f32`, or fetch it again \
                    with `syncdiffusion weights perceptual`"
            .to_owned());
    }
    Ok(Figures { seam, borders, row_borders, intra_lpips })
}
