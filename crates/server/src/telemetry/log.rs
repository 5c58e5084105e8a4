//! The log on stderr, written by a thread of its own: what reads it, or does not, stops nothing else.
//!
//! Up to [`MAX_HELD`] bytes wait for whoever reads. Lines beyond are lost and counted, and the log says how many as
//! soon as there is room again.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::config::LogFormat;

/// The bytes that wait to be written.
const MAX_HELD: usize = 4 << 20;

/// Where lines of the log go. Clones write to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    format: LogFormat,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines that wait.
    waiting: Vec<u8>,
    /// Bytes that are being written.
    writing: usize,
    /// Lines that were lost since the last that was not.
    lost: u64,
}

impl Log {
    /// Starts the thread that writes to stderr.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn to_stderr(format: LogFormat) -> io::Result<Self> {
        Self::to(io::stderr(), format)
    }

    fn to(to: impl Write + Send + 'static, format: LogFormat) -> io::Result<Self> {
        let log = Self(Arc::new(Inner { state: Mutex::default(), changed: Condvar::new(), format }));
        let inner = Arc::clone(&log.0);
        thread::Builder::new().name("log".to_owned()).spawn(move || inner.run(to))?;
        Ok(log)
    }

    /// Waits until everything is written, but not for longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.writing > 0 || !state.waiting.is_empty();
        let _ = self.0.changed.wait_timeout_while(self.0.state(), patience, is_busy);
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, as long as the process lives.
    fn run(&self, mut to: impl Write) {
        loop {
            let mut state = self.state();
            while state.waiting.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let lines = std::mem::take(&mut state.waiting);
            state.writing = lines.len();
            drop(state);
            // There is nowhere to say that stderr is closed.
            let _ = to.write_all(&lines);
            self.state().writing = 0;
            self.changed.notify_all();
        }
    }

    /// Holds a line until it is written, if there is room for it.
    fn add(&self, line: &[u8]) {
        let mut state = self.state();
        let note = if state.lost > 0 { self.note(state.lost) } else { String::new() };
        if state.waiting.len() + state.writing + note.len() + line.len() > MAX_HELD {
            state.lost += 1;
            drop(state);
            metrics::counter!("syncdiffusion_log_lines_lost_total").increment(1);
            return;
        }
        state.lost = 0;
        state.waiting.extend_from_slice(note.as_bytes());
        state.waiting.extend_from_slice(line);
        drop(state);
        self.changed.notify_all();
    }

    /// A line that says how many were lost.
    fn note(&self, lost: u64) -> String {
        let mut time = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let words = "lines of the log were lost, because nobody read them";
        match self.format {
            LogFormat::Text => format!("{time}  WARN {words} lost={lost}\n"),
            LogFormat::Json => format!(
                "{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"target\":\"syncdiffusion\",\"message\":\"{words}\",\
                 \"lost\":{lost}}}\n"
            ),
        }
    }
}

impl Write for Log {
    /// Takes whole lines: that is what is written at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Takes a piece when it is asked for one.
    struct Slow(SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0.send(piece.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe.into()).map(|()| piece.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat) -> (Log, Receiver<Vec<u8>>) {
        let (to, read) = sync_channel(0);
        (Log::to(Slow(to), format).unwrap(), read)
    }

    #[test]
    fn lines_that_nobody_reads_are_lost_and_counted() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let (mut log, read) = log(format);
            let line = format!("{}\n", "x".repeat(1023));
            // None of these waits for the reader.
            for _ in 0..MAX_HELD / 1024 + 3 {
                log.write_all(line.as_bytes()).unwrap();
            }
            log.flush(Duration::from_millis(1));
            let mut held = 0;
            while held < MAX_HELD {
                held += read.recv().unwrap().len();
            }
            assert_eq!(held, MAX_HELD);
            log.flush(Duration::from_secs(30));
            log.write_all(b"after\n").unwrap();
            let mut rest = String::new();
            while !rest.ends_with("after\n") {
                rest.push_str(&String::from_utf8(read.recv().unwrap()).unwrap());
            }
            let note = rest.lines().next().unwrap();
            assert!(note.contains("WARN") && note.contains("were lost"), "{note}");
            match format {
                LogFormat::Text => assert!(note.ends_with(" lost=3"), "{note}"),
                LogFormat::Json => {
                    assert_eq!(serde_json::from_str::<serde_json::Value>(note).unwrap()["lost"], 3);
                }
            }
        }
    }

    #[test]
    fn a_reader_that_is_gone_is_no_trouble() {
        let (mut log, read) = log(LogFormat::Text);
        drop(read);
        for _ in 0..3 {
            log.write_all(b"a line\n").unwrap();
            log.flush(Duration::from_secs(30));
        }
        assert_eq!(log.0.state().lost, 0);
    }
}
