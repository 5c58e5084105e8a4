//! One worker process: its pipes, its threads and its end.
//!
//! Three threads serve a process: one reads frames from its stdout, one lines from its stderr, one writes commands to
//! its stdin. What always holds: [`Message::Exited`] is the last message, and after it or after the [`Worker`] is
//! dropped the process is gone.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command as Spawn, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::frame::{self, Received};
use protocol::{Command, Event};
use rustix::process::Pid;

/// File name of the worker, looked for beside the server.
const FILE_NAME: &str = "syncdiffusion-worker";
/// How long a process may live after its stdout has ended.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);
/// How far a worker steps back for the server.
const NICENESS: i32 = 5;
/// The longest line of stderr in bytes.
const MAX_LOG_LINE: u64 = 64 << 10;
/// How many of the last lines of stderr are kept to explain an end.
const KEPT_LINES: usize = 8;

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// What it is started with.
    pub arguments: Vec<OsString>,
    /// Variables that are set for it, beside those of this process.
    pub environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// A worker of a model on a device; `path` overrides where the executable is looked for.
    pub fn new(path: Option<PathBuf>, model: &str, device: &str, dtype: &str, more: &[String]) -> Self {
        let beside = || std::env::current_exe().ok().as_deref().and_then(Path::parent).map(|dir| dir.join(FILE_NAME));
        let named = ["--model", model, "--device", device, "--dtype", dtype];
        Self {
            path: path.or_else(beside).unwrap_or_else(|| FILE_NAME.into()),
            arguments: named.into_iter().map(Into::into).chain(more.iter().map(Into::into)).collect(),
            environment: Vec::new(),
        }
    }

    /// Starts the process. Everything it sends goes to `on_message`, called from threads of its own.
    ///
    /// # Errors
    /// If it cannot be started; the text says which file and what to do.
    pub fn spawn(&self, on_message: impl Fn(Message) + Send + Sync + 'static) -> io::Result<Worker> {
        let secrets = std::env::vars_os().map(|(name, _)| name).filter(|name| is_secret(name));
        let mut command = Spawn::new(&self.path);
        secrets.for_each(|name| _ = command.env_remove(name));
        let mut child = command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                let path = self.path.display();
                io::Error::new(
                    error.kind(),
                    format!("cannot start the worker `{path}`: {error}; build it, or say where it is with `--worker`"),
                )
            })?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("the worker has no pipes"));
        };
        let on_message = Arc::new(on_message);
        let child = Arc::new(Mutex::new(child));
        let last = Arc::new(Mutex::new(VecDeque::new()));
        let (commands, queue) = mpsc::channel();
        thread::Builder::new().name("worker stdin".to_owned()).spawn(move || write_commands(stdin, &queue))?;
        let lines = thread::Builder::new().name("worker stderr".to_owned()).spawn({
            let (on_message, last) = (Arc::clone(&on_message), Arc::clone(&last));
            move || read_lines(stderr, &*on_message, &last)
        })?;
        thread::Builder::new().name("worker stdout".to_owned()).spawn({
            let child = Arc::clone(&child);
            move || {
                read_frames(stdout, &*on_message);
                let status = reap(&child);
                // A grandchild may hold stderr open for ever, so the last lines are waited for a moment only.
                let until = Instant::now() + Duration::from_millis(200);
                while !lines.is_finished() && Instant::now() < until {
                    thread::sleep(Duration::from_millis(1));
                }
                on_message(Message::Exited(describe(status.as_ref(), &last)));
            }
        })?;
        Ok(Worker { commands, child })
    }
}

/// Whether a variable may hold what a worker does not need and should not have.
fn is_secret(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    let words = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "ACCESS_KEY", "UPLOAD_URL"];
    name.starts_with("AWS_") || name.starts_with("OTEL_EXPORTER") || words.iter().any(|word| name.contains(word))
}

/// What a worker process sends.
#[derive(Debug)]
pub enum Message {
    /// An event, with the bytes of its frame.
    Event(Event, Vec<u8>),
    /// Something on stdout that is not an event.
    Malformed(String),
    /// A line of stderr.
    Line(String),
    /// The process is gone, and how.
    Exited(String),
}

/// A running worker. Dropping it kills the process.
#[derive(Debug)]
pub struct Worker {
    commands: Sender<(Command, Vec<u8>)>,
    child: Arc<Mutex<Child>>,
}

impl Worker {
    /// Sends a command. One that cannot be delivered is dropped: the end of the process is reported anyway.
    pub fn send(&self, command: Command) {
        self.send_with(command, Vec::new());
    }

    /// Sends a command and the bytes of its frame, likewise.
    pub fn send_with(&self, command: Command, bytes: Vec<u8>) {
        let _ = self.commands.send((command, bytes));
    }

    /// Puts the process behind others where they want the same processor, so that a server beside it answers at once.
    pub fn step_back(&self) {
        let pid = Pid::from_child(&self.child.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = rustix::process::setpriority_process(Some(pid), NICENESS) {
            tracing::debug!(%error, "the priority of a worker could not be lowered");
        }
    }

    /// Ends the process at once.
    pub fn kill(&self) {
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Writes commands until there are no more senders or the process stops reading.
fn write_commands(mut stdin: ChildStdin, commands: &Receiver<(Command, Vec<u8>)>) {
    while let Ok((command, bytes)) = commands.recv() {
        if frame::write(&mut stdin, &command, &bytes).is_err() {
            return;
        }
    }
}

/// Passes frames on until stdout ends.
fn read_frames(stdout: ChildStdout, on_message: &impl Fn(Message)) {
    let mut stdout = BufReader::with_capacity(1 << 16, stdout);
    loop {
        match frame::read(&mut stdout) {
            Ok(Received::Frame(event, bytes)) => on_message(Message::Event(event, bytes)),
            Ok(Received::Malformed(why)) => on_message(Message::Malformed(why)),
            Ok(Received::End) | Err(_) => return,
        }
    }
}

/// Passes lines of stderr on until it ends.
fn read_lines(stderr: ChildStderr, on_message: &impl Fn(Message), last: &Mutex<VecDeque<String>>) {
    let mut stderr = BufReader::new(stderr);
    let mut bytes = Vec::new();
    // A line that is longer becomes several.
    while matches!((&mut stderr).take(MAX_LOG_LINE).read_until(b'\n', &mut bytes), Ok(read) if read > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        bytes.clear();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == KEPT_LINES {
            last.pop_front();
        }
        last.push_back(line.clone());
        drop(last);
        on_message(Message::Line(line));
    }
}

/// Waits for the process, and kills it if it does not go by itself.
fn reap(child: &Mutex<Child>) -> Option<ExitStatus> {
    let until = Instant::now() + EXIT_PATIENCE;
    loop {
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        match child.try_wait() {
            Ok(None) if Instant::now() < until => {}
            Ok(None) => {
                let _ = child.kill();
                return child.wait().ok();
            }
            Ok(status) => return status,
            Err(_) => return None,
        }
        drop(child);
        thread::sleep(Duration::from_millis(2));
    }
}

/// The end of a process in words.
fn describe(status: Option<&ExitStatus>, last: &Mutex<VecDeque<String>>) -> String {
    let status = status.map_or_else(|| "an unknown status".to_owned(), ToString::to_string);
    let last = last.lock().unwrap_or_else(PoisonError::into_inner);
    match last.iter().rev().find(|line| !line.is_empty()) {
        Some(line) => format!("{status}; its last line was `{line}`"),
        None => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_inherits_no_secret() {
        for secret in [
            "SYNCDIFFUSION_API_TOKEN",
            "WEBHOOK_AUTH_TOKEN",
            "SYNCDIFFUSION_WEBHOOK_SECRET",
            "SYNCDIFFUSION_UPLOAD_URL",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "HF_TOKEN",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ] {
            assert!(is_secret(secret.as_ref()), "{secret}");
        }
        for other in ["PATH", "CUDA_VISIBLE_DEVICES", "RUST_LOG", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "HOME"] {
            assert!(!is_secret(other.as_ref()), "{other}");
        }
    }

    #[test]
    fn a_line_without_an_end_becomes_several() {
        let long = format!("head -c {} /dev/zero | tr '\\0' x >&2", 3 * MAX_LOG_LINE);
        let program =
            Program { path: "/bin/sh".into(), arguments: vec!["-c".into(), long.into()], environment: Vec::new() };
        let (to, messages) = mpsc::channel();
        let worker = program.spawn(move |message| _ = to.send(message)).unwrap();
        let lines = messages.iter().filter_map(|message| match message {
            Message::Line(line) => Some(line.len() as u64),
            _ => None,
        });
        assert_eq!(lines.collect::<Vec<_>>(), [MAX_LOG_LINE; 3]);
        drop(worker);
    }
}
