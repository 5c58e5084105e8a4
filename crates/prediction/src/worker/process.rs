//! One worker process: its pipes, its threads and its end.
//!
//! Three threads serve a process: one starts it, reads frames from its stdout and waits for its end, one reads lines
//! from its stderr, one writes commands to its stdin. What always holds: [`Message::Exited`] is the last message, and
//! after it or after the [`Worker`] is dropped the process is gone.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command as Spawn, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use protocol::frame::{self, Received};
use protocol::{Command, Event};

use super::child::{self, Child};

use crate::mutex::lock;

/// File name of the worker, looked for beside the server.
const FILE_NAME: &str = "syncdiffusion-worker";
/// How long a process may live after its stdout has ended.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);
/// The longest line of stderr in bytes.
const MAX_LOG_LINE: u64 = 64 << 10;
/// The longest line of an event in bytes. Only commands carry prompts.
const MAX_EVENT_LINE: usize = 1 << 20;
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

    /// Starts the process. Everything it sends goes to `on_message`, called from threads of its own, which wait for it.
    ///
    /// # Errors
    /// If it cannot be started; the text says which file and what to do.
    pub fn spawn(&self, on_message: impl Fn(Message) + Send + Sync + 'static) -> io::Result<Worker> {
        let (program, (started, start)) = (self.clone(), mpsc::sync_channel(1));
        // The process ends with the thread that starts it, so that is one which waits for it.
        thread::Builder::new()
            .name("worker stdout".to_owned())
            .spawn(move || program.serve(&Arc::new(on_message), &started))?;
        start.recv().unwrap_or_else(|_| Err(io::Error::other("the thread of the worker has ended")))
    }

    /// Starts the process, says so, and looks after it until it has ended.
    fn serve<F>(&self, on_message: &Arc<F>, started: &SyncSender<io::Result<Worker>>)
    where
        F: Fn(Message) + Send + Sync + 'static,
    {
        let last = Arc::default();
        let begun = self.begin().and_then(|(worker, stdout, stderr)| {
            let (on_message, last) = (Arc::clone(on_message), Arc::clone(&last));
            let lines = thread::Builder::new()
                .name("worker stderr".to_owned())
                .spawn(move || read_lines(stderr, &*on_message, &last))?;
            Ok((worker, stdout, lines))
        });
        let (worker, stdout, lines) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let (child, picture) = (Arc::clone(&worker.child), Arc::clone(&worker.picture));
        let _ = started.send(Ok(worker));
        read_frames(stdout, &**on_message, &picture);
        let status = child.reap(EXIT_PATIENCE);
        // A grandchild may hold stderr open for ever, so the last lines are waited for a moment only.
        let until = Instant::now() + Duration::from_millis(200);
        while !lines.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        on_message(Message::Exited(describe(status.as_ref(), &last)));
    }

    /// Starts the process, and the thread that writes to it.
    fn begin(&self) -> io::Result<(Worker, ChildStdout, ChildStderr)> {
        let mut command = Spawn::new(&self.path);
        secrets().for_each(|name| _ = command.env_remove(name));
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = child::spawn(&mut command).map_err(|error| {
            let path = self.path.display();
            io::Error::new(
                error.kind(),
                format!("cannot start the worker `{path}`: {error}; build it, or say where it is with `--worker`"),
            )
        })?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (commands, queue) = mpsc::channel();
        let worker = Worker { commands, child: Arc::new(Child::new(child)), picture: Arc::default() };
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("the worker has no pipes"));
        };
        thread::Builder::new().name("worker stdin".to_owned()).spawn(move || write_commands(stdin, &queue))?;
        Ok((worker, stdout, stderr))
    }
}

/// The variables of this process that a worker is started without.
pub fn secrets() -> impl Iterator<Item = OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| is_secret(name))
}

/// Whether a variable may hold what a worker does not need and should not have.
fn is_secret(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    let words = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "ACCESS_KEY", "UPLOAD_URL"];
    let (starts, ends) = (["AWS_", "AZURE_", "OTEL_EXPORTER"], ["_KEY", "_PROXY", "DATABASE_URL"]);
    words.iter().any(|word| name.contains(word))
        || starts.iter().any(|start| name.starts_with(start))
        || ends.iter().any(|end| name.ends_with(end))
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
    child: Arc<Child>,
    /// The bytes of the largest picture that it was asked for.
    picture: Arc<AtomicU64>,
}

impl Worker {
    /// Sends a command. One that cannot be delivered is dropped: the end of the process is reported anyway.
    pub fn send(&self, command: Command) {
        self.send_with(command, Vec::new());
    }

    /// Sends a command and the bytes of its frame, likewise.
    pub fn send_with(&self, command: Command, bytes: Vec<u8>) {
        if let Command::Run { input, .. } = &command {
            self.picture.fetch_max(picture_bytes(input.width, input.height), Ordering::Relaxed);
        }
        let _ = self.commands.send((command, bytes));
    }

    /// Puts the process behind others where they want the same processor, so that a server beside it answers at once.
    pub fn step_back(&self) {
        if let Err(error) = self.child.step_back() {
            tracing::debug!(%error, "the priority of a worker could not be lowered");
        }
    }

    /// Ends the process at once, and what it has started.
    pub fn kill(&self) {
        self.child.kill();
    }
}

/// How many bytes of RGB a picture has.
pub fn picture_bytes(width: u32, height: u32) -> u64 {
    3 * u64::from(width) * u64::from(height)
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

/// Passes frames on until stdout ends. None has more bytes than `picture`.
fn read_frames(stdout: ChildStdout, on_message: &impl Fn(Message), picture: &AtomicU64) {
    let mut stdout = BufReader::with_capacity(1 << 16, stdout);
    loop {
        match frame::read_up_to(&mut stdout, MAX_EVENT_LINE, || picture.load(Ordering::Relaxed)) {
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
        let mut last = lock(last);
        if last.len() == KEPT_LINES {
            last.pop_front();
        }
        last.push_back(line.clone());
        drop(last);
        on_message(Message::Line(line));
    }
}

/// The end of a process in words.
fn describe(status: Option<&ExitStatus>, last: &Mutex<VecDeque<String>>) -> String {
    let status = status.map_or_else(|| "an unknown status".to_owned(), ToString::to_string);
    let last = lock(last);
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
            "https_proxy",
            "STRIPE_KEY",
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

    fn shell(script: &str) -> Program {
        Program { path: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()], environment: Vec::new() }
    }

    /// Whether a process runs. One that nobody has waited for yet does not.
    fn runs(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    #[test]
    fn a_worker_outlives_the_thread_that_asks_for_it() {
        let (to, messages) = mpsc::channel();
        let spawn = move || shell("exec cat").spawn(move |message| _ = to.send(message)).unwrap();
        let worker = thread::spawn(spawn).join().unwrap();
        worker.send(Command::Shutdown);
        assert!(matches!(messages.recv().unwrap(), Message::Malformed(_)), "it repeats the command");
    }

    #[test]
    fn what_a_worker_has_started_ends_with_it() {
        for script in ["sleep 1000 & echo $! >&2; wait", "sleep 1000 >/dev/null 2>&1 & echo $! >&2"] {
            let (to, messages) = mpsc::channel();
            let worker = shell(script).spawn(move |message| _ = to.send(message)).unwrap();
            let Message::Line(pid) = messages.recv().unwrap() else { panic!("it says the number first") };
            if script.ends_with("wait") {
                assert!(runs(&pid));
                drop(worker);
            }
            messages.iter().find(|message| matches!(message, Message::Exited(_))).unwrap();
            while runs(&pid) {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn no_event_has_more_bytes_than_the_picture_that_was_asked_for() {
        let done = r#"{"type":"done","job":"1","width":9,"height":9,"seconds":1,"work":{"unet_forwards":0,"unet_backwards":0,"window_decodes":0,"window_decode_backwards":0,"perceptual_forwards":0,"perceptual_backwards":0,"text_encodes":0},"peak_memory_bytes":0,"bytes":5000}"#;
        let script = format!("echo '{done}'; head -c 5000 /dev/zero; echo '{{\"type\":\"canceled\",\"job\":\"2\"}}'");
        let (to, messages) = mpsc::channel();
        let _worker = shell(&script).spawn(move |message| _ = to.send(message)).unwrap();
        assert!(matches!(messages.recv().unwrap(), Message::Event(Event::Done { .. }, bytes) if bytes.is_empty()));
        assert!(matches!(messages.recv().unwrap(), Message::Event(Event::Canceled { .. }, _)), "the next is read");
    }
}
