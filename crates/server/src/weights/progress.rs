//! How a fetch shows its progress: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use weights::{Progress, ProgressEvent};

/// Files from this size on report tenths where there are no bars.
const LARGE: u64 = 10_000_000;

/// A bar for each file.
#[derive(Default)]
pub(super) struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Progress for Bars {
    fn report(&self, event: ProgressEvent<'_>) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ProgressEvent::Begun { path, size, have } => {
                let bar = bars.entry(path.to_owned()).or_insert_with(|| {
                    let template = "{bar:20} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta:>4} {wide_msg}";
                    self.all.add(ProgressBar::new(size).with_style(style(template)).with_message(path.to_owned()))
                });
                bar.set_position(have);
                // What was received before says nothing about the speed.
                bar.reset_eta();
            }
            ProgressEvent::Received { path, have } => {
                if let Some(bar) = bars.get(path) {
                    bar.set_position(have);
                }
            }
            ProgressEvent::Done { path } => {
                if let Some(bar) = bars.remove(path) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                    self.all.suspend(|| eprintln!("{path}: done"));
                }
            }
            ProgressEvent::Note(text) => self.all.suspend(|| eprintln!("{text}")),
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // Bars that are left would be drawn over what is printed next. A terminal that is gone does not matter.
        _ = self.all.clear();
    }
}

/// Lines: one when a file is begun, one at each tenth of a large one, one when it is done.
#[derive(Default)]
pub(super) struct Lines(Mutex<HashMap<String, (u64, u64)>>);

impl Progress for Lines {
    fn report(&self, event: ProgressEvent<'_>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ProgressEvent::Begun { path, size, have } => {
                let kept = if have > 0 { format!(", {} of them kept", HumanBytes(have)) } else { String::new() };
                eprintln!("{path}: {}{kept}", HumanBytes(size));
                files.insert(path.to_owned(), (size, tenths(have, size)));
            }
            ProgressEvent::Received { path, have } => {
                if let Some((size, reported)) = files.get_mut(path)
                    && *size >= LARGE
                    && (*reported + 1..10).contains(&tenths(have, *size))
                {
                    *reported = tenths(have, *size);
                    eprintln!("{path}: {} %", *reported * 10);
                }
            }
            ProgressEvent::Done { path } => eprintln!("{path}: done"),
            ProgressEvent::Note(text) => eprintln!("{text}"),
        }
    }
}

/// How many tenths of a file have been received.
fn tenths(have: u64, size: u64) -> u64 {
    have.saturating_mul(10).checked_div(size).unwrap_or(10)
}

pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
