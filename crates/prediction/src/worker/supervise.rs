//! Keeps one worker alive: starts it, listens, ends it when it hangs, starts another when it is lost.
//!
//! A worker that cannot load the first time is not tried again, for its model or its device is at fault. One that was ready is
//! replaced at once if a job brought it down, and with growing waits if it falls by itself; after [`FALLS`] such falls in a row it is given up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::process::{Heard, Program};
use crate::service::{Duty, Shared};

/// How often in a row a worker may fall by itself.
const FALLS: u32 = 5;
/// The wait after the first fall; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// How often a silent worker is looked after.
const LOOK: Duration = Duration::from_secs(1);

/// Serves the post of one worker until the server stops.
pub(crate) async fn run(shared: Arc<Shared>, index: usize, program: Program) {
    let mut falls = 0;
    let mut was_ready = false;
    for process in 0.. {
        if process > 0 {
            metrics::counter!("syncdiffusion_worker_restarts_total", "worker" => index.to_string()).increment(1);
        }
        let (to, mut heard) = unbounded_channel();
        let life = match program.spawn(move |word| _ = to.send(word)) {
            Err(error) => Life { ready: false, worked: false, end: error.to_string() },
            Ok(worker) => {
                worker.step_back();
                shared.enlist(index, worker);
                listen(&shared, index, &mut heard).await
            }
        };
        if shared.is_closing() {
            shared.lost(index, Duty::Lost(life.end.clone()), &life.end);
            return;
        }
        was_ready |= life.ready;
        falls = if life.worked { 0 } else { falls + 1 };
        tracing::error!(worker = index, why = %life.end, falls, "worker lost");
        let duty = match shared.duty(index) {
            _ if was_ready && falls >= FALLS => Duty::Dead(life.end.clone()),
            _ if was_ready => Duty::Lost(life.end.clone()),
            Duty::LoadFailed(error) => Duty::LoadFailed(error),
            _ => Duty::LoadFailed(format!("the worker ended while it loaded: {}", life.end)),
        };
        let over = !matches!(duty, Duty::Lost(_));
        shared.lost(index, duty, &life.end);
        if over {
            return;
        }
        if falls > 0 {
            tokio::time::sleep(FIRST_WAIT * 2u32.pow(falls - 1)).await;
        }
    }
}

/// One process, from its start to its end.
struct Life {
    /// It was ready.
    ready: bool,
    /// It held a job at its end, or had ended one: it did not fall by itself.
    worked: bool,
    /// How it ended.
    end: String,
}

/// Passes on what a process says until it has ended, and ends it when it says nothing for too long.
async fn listen(shared: &Arc<Shared>, index: usize, heard: &mut UnboundedReceiver<Heard>) -> Life {
    let mut life = Life { ready: false, worked: false, end: String::new() };
    loop {
        // A job may be given to a silent worker at any time, so even without one its patience is asked for again.
        let word = match shared.patience(index, life.ready).unwrap_or(LOOK) {
            Duration::ZERO => {
                let what = if life.ready { "said nothing of its jobs" } else { "did not load" };
                return Life { worked: life.ready, end: format!("it {what} in time"), ..life };
            }
            patience => match tokio::time::timeout(patience.min(LOOK), heard.recv()).await {
                Err(_) => continue,
                Ok(word) => word,
            },
        };
        match word {
            None => return life,
            Some(Heard::Ended(how)) => {
                life.worked |= shared.holds_work(index);
                life.end = if life.end.is_empty() { how } else { std::mem::take(&mut life.end) };
                return life;
            }
            Some(Heard::Line(line)) => shared.line(index, &line),
            Some(Heard::Malformed(why)) => {
                tracing::warn!(worker = index, %why, "worker said something that is no event");
            }
            Some(Heard::Event(event, bytes)) => {
                match &event {
                    protocol::Event::Ready { .. } => life.ready = true,
                    protocol::Event::Done { .. } => life.worked = true,
                    protocol::Event::Failed { error, fatal: true, .. } => life.end.clone_from(error),
                    _ => {}
                }
                shared.hear(index, event, bytes);
            }
        }
    }
}
