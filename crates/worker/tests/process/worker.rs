//! A worker process, and what is sent to it.

use std::io::{BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command as Process, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use protocol::frame::{self, Received};
use protocol::{Blend, Command, Event, Format, Input, Scheduler, SyncMode};

/// A running worker.
pub(crate) struct Worker {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// In f32 unless `arguments` say otherwise.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let dtype: &[&str] = if arguments.contains(&"--dtype") { &[] } else { &["--dtype", "f32"] };
        let mut process = Process::new(env!("CARGO_BIN_EXE_syncdiffusion-worker"))
            .args(["--device", "cpu", "--threads", "1"])
            .args(dtype)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Self { process, stdin, stdout }
    }

    /// With the demo model.
    pub(crate) fn ready() -> Self {
        Self::ready_with(&[])
    }

    pub(crate) fn ready_with(arguments: &[&str]) -> Self {
        let mut worker = Self::start(arguments);
        let (events, _) = worker.until(|event| matches!(event, Event::Ready { .. } | Event::LoadFailed { .. }));
        assert!(matches!(events.last(), Some(Event::Ready { .. })), "{events:?}");
        worker
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn command(&mut self, command: &Command) {
        self.command_with(command, &[]);
    }

    pub(crate) fn command_with(&mut self, command: &Command, bytes: &[u8]) {
        frame::write(self.stdin.as_mut().unwrap(), command, bytes).unwrap();
    }

    pub(crate) fn run(&mut self, job: &str, input: Input) {
        self.command(&Command::Run { job: job.to_owned(), input: Box::new(input), pictures: Vec::new() });
    }

    pub(crate) fn next(&mut self) -> (Event, Vec<u8>) {
        match frame::read(&mut self.stdout).unwrap() {
            Received::Frame(event, bytes) => (event, bytes),
            other => panic!("the worker sent {other:?}"),
        }
    }

    /// The first event that `wanted` accepts, and all before it.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> (Vec<Event>, Vec<u8>) {
        let mut events = Vec::new();
        loop {
            let (event, bytes) = self.next();
            let found = wanted(&event);
            events.push(event);
            if found {
                return (events, bytes);
            }
        }
    }

    /// Closes stdin and waits for the end.
    pub(crate) fn end(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.wait()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the worker does not end");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn input(width: u32, height: u32, steps: u32) -> Input {
    Input {
        prompt: "a beach with palms".to_owned(),
        negative_prompt: String::new(),
        width,
        height,
        guidance_scale: 5.0,
        sync_weight: 20.0,
        sync_decay_rate: 0.99,
        sync_freq: 1,
        sync_threshold: 1,
        num_inference_steps: steps,
        stride: 16,
        seed: 2,
        loop_closure: false,
        blend: Blend::Even,
        seamless: false,
        sync_mode: SyncMode::Windows,
        scheduler: Scheduler::Ddim,
        prompts: Vec::new(),
        anchor_image: None,
        image: None,
        image_left: None,
        strength: None,
        output_format: Format::Png,
        output_quality: 90,
        evaluate: false,
        num_outputs: 1,
    }
}

pub(crate) fn done(job: &'static str) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Done { job: other, .. } if other == job)
}
