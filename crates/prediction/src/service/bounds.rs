//! What a worker may send. A worker that is broken costs neither the memory of the server nor its threads.

use protocol::{Event, Model};

/// The largest window in latents, far above that of any model.
const MAX_WINDOW: u32 = 1024;
/// The most pixels per latent.
const MAX_FACTOR: u32 = 64;
/// The longest name of a model, its version, a device or a dtype, in bytes.
const MAX_NAME: usize = 4096;
/// The most jobs that a worker may advance at once: so many more predictions are accepted than may wait.
const MAX_JOBS: u32 = 256;
/// The longest error of a worker in bytes.
const MAX_ERROR: usize = 16 << 10;
/// The longest line for the logs of a prediction in bytes.
const MAX_LINE: usize = 64 << 10;

/// An event with what is too long in it cut.
///
/// # Errors
/// Why the worker is ended, if nothing can be done with it.
pub(super) fn bounded(event: Event) -> Result<Event, String> {
    Ok(match event {
        Event::Loading { model } => Event::Loading { model: sound(model)? },
        Event::Ready { model, load_seconds, peak_memory_bytes, jobs, unusable, no_encoder } => {
            // There are no more schedulers than that.
            let unusable =
                unusable.into_iter().take(3).map(|(scheduler, why)| (scheduler, cut(why, MAX_LINE))).collect();
            let (model, jobs) = (sound(model)?, jobs.min(MAX_JOBS));
            let no_encoder = no_encoder.map(|why| cut(why, MAX_LINE));
            Event::Ready { model, load_seconds, peak_memory_bytes, jobs, unusable, no_encoder }
        }
        Event::LoadFailed { error } => Event::LoadFailed { error: cut(error, MAX_ERROR) },
        Event::Failed { job, error, fatal } => Event::Failed { job, error: cut(error, MAX_ERROR), fatal },
        Event::Malformed { error } => Event::Malformed { error: cut(error, MAX_ERROR) },
        Event::Log { job, line } => Event::Log { job, line: cut(line, MAX_LINE) },
        // These have no texts of any length; the last two are not for a server.
        other @ (Event::Progress { .. }
        | Event::Preview { .. }
        | Event::Picture { .. }
        | Event::Done { .. }
        | Event::Canceled { .. }
        | Event::Batch { .. }
        | Event::Evaluator { .. }
        | Event::Evaluated { .. }) => other,
    })
}

/// A model that sizes can be computed for.
fn sound(model: Model) -> Result<Model, String> {
    let Model { name, version, window, vae_factor, device, dtype } = model;
    if !(1..=MAX_WINDOW).contains(&window) || !(1..=MAX_FACTOR).contains(&vae_factor) {
        return Err(format!(
            "it has a model with windows of {window} latents and {vae_factor} pixels per latent, which cannot be; build \
             the worker and the server from the same sources"
        ));
    }
    let [name, version, device, dtype] = [name, version, device, dtype].map(|text| cut(text, MAX_NAME));
    Ok(Model { name, version, window, vae_factor, device, dtype })
}

/// The beginning of a text.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use protocol::Scheduler;

    use super::*;

    fn model(window: u32, vae_factor: u32) -> Model {
        let (version, device, dtype) = ("v".repeat(64), "cpu".to_owned(), "f32".to_owned());
        Model { name: "ü".repeat(MAX_NAME), version, window, vae_factor, device, dtype }
    }

    fn ready(model: Model, jobs: u32, unusable: Vec<(Scheduler, String)>) -> Event {
        let no_encoder = Some("x".repeat(1 << 20));
        Event::Ready { model, load_seconds: 0.0, peak_memory_bytes: 0, jobs, unusable, no_encoder }
    }

    #[test]
    fn a_model_that_cannot_be_ends_its_worker() {
        for (window, factor) in [(0, 8), (64, 0), (u32::MAX, 8), (64, u32::MAX)] {
            let ready = ready(model(window, factor), 1, Vec::new());
            for event in [Event::Loading { model: model(window, factor) }, ready] {
                let why = bounded(event).unwrap_err();
                assert!(why.contains(&window.to_string()) && why.contains(&factor.to_string()), "{why}");
            }
        }
        let Ok(Event::Loading { model }) = bounded(Event::Loading { model: model(64, 8) }) else { panic!() };
        assert!(model.name.len() <= MAX_NAME + 4 && model.version.len() == 64);
    }

    #[test]
    fn texts_and_jobs_of_a_worker_are_bounded() {
        let (job, long) = ("1".to_owned(), "x".repeat(1 << 20));
        let texts = [
            Event::LoadFailed { error: long.clone() },
            Event::Failed { job: job.clone(), error: long.clone(), fatal: true },
            Event::Malformed { error: long.clone() },
            Event::Log { job, line: long },
        ];
        for event in texts {
            let size = serde_json::to_string(&bounded(event).unwrap()).unwrap().len();
            assert!(size < MAX_LINE + 200, "{size}");
        }
        let unusable = vec![(Scheduler::UniPc, "x".repeat(1 << 20)); 9];
        let Ok(Event::Ready { jobs: MAX_JOBS, unusable, no_encoder, .. }) =
            bounded(ready(model(64, 8), u32::MAX, unusable))
        else {
            panic!("it is cut")
        };
        assert!(no_encoder.is_some_and(|why| why.len() < MAX_LINE + 4));
        assert!(unusable.len() == 3 && unusable.iter().all(|(_, why)| why.len() < MAX_LINE + 4));
    }
}
