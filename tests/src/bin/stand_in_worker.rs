//! A worker without tensors: it speaks the protocol, draws a gradient from the seed, and misbehaves on request.
//!
//! Words in the prompt of a job control it: `step=MS` (duration of a step, 1 by default), `fail`, `crash`,
//! `crash-once=FILE` (crashes if FILE does not exist, and creates it), `hang`, `fatal`, `garbage`, `stubborn` (ignores
//! a cancellation), `clock` (logs the microseconds since 1970 when it starts), `noise` (a picture that cannot be
//! compressed), `until=FILE` (stops after the first step until FILE exists), `flood=N` (logs N lines of 1000
//! characters), `early` (sends the first of several pictures before the first step), `short` (leaves out the last of
//! them), `endless` (reports more steps than there are), `of=N` (draws N steps instead of all), `tiny` and `bloated` (a
//! picture of another size, and one with more bytes than it has). It logs the size and the mean colour of each picture
//! that it was given. The environment controls how it loads: `STAND_IN_LOAD_MS`, `STAND_IN_LOAD_ERROR`,
//! `STAND_IN_LOAD_CRASH`, `STAND_IN_JOBS`, `STAND_IN_WINDOW`, `STAND_IN_VAE_FACTOR`, `STAND_IN_VERSION`,
//! `STAND_IN_DTYPE`, `STAND_IN_WITHOUT_UNIPC`, `STAND_IN_WITHOUT_ENCODER`. As `doctor` it reports a machine with a CPU,
//! or `STAND_IN_DOCTOR`. With `evaluate` it answers with what it was sent: the first pixel of a picture as its figures.

use std::io::{self, BufReader, Write as _};
use std::path::Path;
use std::process::exit;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::frame::{self, Received};
use protocol::{Command, Event, Figures, Given, Input, Model, Net, Scheduler, Stage, Work};

/// The number of windows in every batch, and the maximum.
const BATCH: (u32, u32) = (13, 26);
/// The report on the machine for `doctor`.
const MACHINE: &str = r#"{"libtorch":"2.11.0","cuda":{"available":false,"why":"the stand-in has none","devices":[]},"cpu":{"threads":2,"features":["avx2"]},"auto":{"device":"cpu","dtype":"f32"},"memory":{"available":1073741824}}"#;

/// A job that has not ended.
struct Job {
    name: String,
    input: Input,
    begun: Instant,
    step: u32,
    next: Instant,
    canceled: bool,
}

fn main() {
    let begun = Instant::now();
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "doctor") {
        println!("{}", std::env::var("STAND_IN_DOCTOR").as_deref().unwrap_or(MACHINE));
        exit(0);
    }
    let flag = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).cloned()
    };
    let device = flag("--device").filter(|device| device != "auto").unwrap_or_else(|| "cpu".to_owned());
    let model = Model {
        name: flag("--model").unwrap_or_else(|| "demo".to_owned()),
        version: std::env::var("STAND_IN_VERSION").unwrap_or_else(|_| "5a4d".repeat(16)),
        window: setting("STAND_IN_WINDOW").unwrap_or(64),
        vae_factor: setting("STAND_IN_VAE_FACTOR").unwrap_or(8),
        device,
        dtype: std::env::var("STAND_IN_DTYPE").unwrap_or_else(|_| "f32".to_owned()),
    };
    eprintln!(" INFO stand_in: loading `{}` on {}", model.name, model.device);
    let evaluates = arguments.last().is_some_and(|last| last == "evaluate");
    if !evaluates {
        say(&Event::Loading { model: model.clone() }, &[]);
    }
    thread::sleep(Duration::from_millis(setting("STAND_IN_LOAD_MS").unwrap_or(0).into()));
    if let Ok(error) = std::env::var("STAND_IN_LOAD_ERROR") {
        say(&Event::LoadFailed { error }, &[]);
        exit(1);
    }
    if std::env::var_os("STAND_IN_LOAD_CRASH").is_some() {
        exit(9);
    }
    if evaluates {
        evaluate(&model);
    }
    let jobs = setting("STAND_IN_JOBS").unwrap_or(1);
    let load_seconds = begun.elapsed().as_secs_f64();
    let why = |_| vec![(Scheduler::UniPc, "must be `ddim`: the stand-in was told so".to_owned())];
    let unusable = std::env::var_os("STAND_IN_WITHOUT_UNIPC").map(why).unwrap_or_default();
    let why = |_| "cannot be used with this model: the stand-in was told so".to_owned();
    let no_encoder = std::env::var_os("STAND_IN_WITHOUT_ENCODER").map(why);
    say(&Event::Ready { model, load_seconds, peak_memory_bytes: 1 << 20, jobs, unusable, no_encoder }, &[]);
    let (to, commands) = mpsc::channel();
    thread::spawn(move || {
        let mut stdin = BufReader::new(io::stdin());
        loop {
            match frame::read(&mut stdin) {
                Ok(Received::Frame(command, bytes)) => _ = to.send((command, bytes)),
                Ok(Received::Malformed(error)) => say(&Event::Malformed { error }, &[]),
                Ok(Received::End) | Err(_) => exit(0),
            }
        }
    });
    work(&commands, jobs as usize);
}

/// Answers with the red of the first pixel as the seam, its green as the borders and its blue as Intra-LPIPS, in
/// hundredths; red 255 is a failure. Borders need windows.
fn evaluate(model: &Model) -> ! {
    let net = Net { model: model.name.clone(), channels: vec![1, 2, 3, 4, 5], version: model.version.clone() };
    say(&Event::Evaluator { net, window: model.window, vae_factor: model.vae_factor }, &[]);
    let mut stdin = BufReader::new(io::stdin());
    while let Ok(Received::Frame(command, rgb)) = frame::read(&mut stdin) {
        let Command::Evaluate { job, width, height, windows } = command else { continue };
        if rgb.len() != 3 * (width * height) as usize || rgb[0] == 255 {
            say(&Event::Failed { job, error: "the stand-in was told to fail".to_owned(), fatal: false }, &[]);
            continue;
        }
        let [seam, borders, intra_lpips] = [0, 1, 2].map(|i| Some(f64::from(rgb[i]) / 100.0));
        let figures = Figures { seam, borders: borders.filter(|_| windows.is_some()), row_borders: None, intra_lpips };
        say(&Event::Evaluated { job, figures }, &[]);
    }
    exit(0);
}

/// A number from the environment.
fn setting(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

/// Writes an event.
fn say(event: &Event, bytes: &[u8]) {
    if frame::write(io::stdout().lock(), event, bytes).is_err() {
        exit(0);
    }
}

/// Advances the first jobs step by step, until the commands end.
fn work(commands: &Receiver<(Command, Vec<u8>)>, at_once: usize) {
    let mut jobs: Vec<Job> = Vec::new();
    let mut leaving = false;
    loop {
        let wait = jobs.iter().take(at_once).map(|job| job.next.saturating_duration_since(Instant::now())).min();
        match commands.recv_timeout(wait.unwrap_or(Duration::from_hours(1))) {
            Ok((Command::Run { job: name, input, pictures }, rgb)) => {
                describe(&name, &pictures, &rgb);
                let now = Instant::now();
                let job = Job { name, input: *input, begun: now, step: 0, next: now, canceled: false };
                if job.asks_for("clock") {
                    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    say(&Event::Log { job: job.name.clone(), line: format!("clock {}", since.as_micros()) }, &[]);
                }
                jobs.push(job);
            }
            Ok((Command::Cancel { job: name }, _)) => {
                if let Some(job) = jobs.iter_mut().find(|job| job.name == name) {
                    job.canceled = !job.asks_for("stubborn");
                }
            }
            Ok((Command::Preview { job: name }, _)) => {
                if let Some(Job { input, step, .. }) = jobs.iter().find(|job| job.name == name) {
                    let (width, height) = (input.width / 8, input.height / 8);
                    let preview = Event::Preview { job: name, step: *step, width, height };
                    say(&preview, &gradient(width, height, input.seed));
                }
            }
            Ok((Command::Shutdown, _)) => leaving = true,
            Ok((Command::Evaluate { .. }, _)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        let mut at = 0;
        jobs.retain_mut(|job| {
            at += 1;
            if job.canceled {
                say(&Event::Canceled { job: job.name.clone() }, &[]);
                return false;
            }
            at > at_once || job.next > now || job.advance()
        });
        if leaving && jobs.is_empty() {
            return;
        }
    }
}

/// Logs what was given.
fn describe(job: &str, pictures: &[Given], mut rgb: &[u8]) {
    for Given { field, width, height } in pictures {
        let (own, rest) = rgb.split_at((3 * width * height) as usize);
        rgb = rest;
        let mean = |at: usize| {
            own.iter().skip(at).step_by(3).map(|&byte| u64::from(byte)).sum::<u64>() / (own.len() as u64 / 3)
        };
        let line = format!("given {field} {width}x{height} {},{},{}", mean(0), mean(1), mean(2));
        say(&Event::Log { job: job.to_owned(), line }, &[]);
    }
    assert!(rgb.is_empty(), "{} bytes belong to no picture", rgb.len());
}

impl Job {
    /// Whether the prompt contains a word.
    fn asks_for(&self, word: &str) -> bool {
        self.input.prompt.split(' ').any(|is| is == word)
    }

    /// The value of `word=` in the prompt.
    fn value(&self, word: &str) -> Option<&str> {
        self.input.prompt.split(' ').find_map(|is| is.strip_prefix(word)?.strip_prefix('='))
    }

    /// Does a step; false if the job has ended with it.
    fn advance(&mut self) -> bool {
        if self.step == 1 && self.value("until").is_some_and(|file| !Path::new(file).exists()) {
            self.next = Instant::now() + Duration::from_millis(5);
            return true;
        }
        if self.step == 0 && self.asks_for("early") {
            self.show(0, (self.input.width, self.input.height));
        }
        self.step += 1;
        let of = self.value("of").and_then(|of| of.parse().ok()).unwrap_or(self.input.num_inference_steps);
        let pace = self.value("step").and_then(|ms| ms.parse().ok()).unwrap_or(1_u64);
        self.next = Instant::now() + Duration::from_millis(pace);
        if self.asks_for("garbage") && self.step == 1 {
            let _ = io::stdout().write_all(b"this is not an event\n{\"type\":\"nor is this\"}\n");
        }
        if let Some(lines) = self.value("flood").and_then(|lines| lines.parse::<u32>().ok()).filter(|_| self.step == 1)
        {
            for _ in 0..lines {
                say(&Event::Log { job: self.name.clone(), line: "x".repeat(1000) }, &[]);
            }
        }
        if self.asks_for("endless") {
            let (job, step) = (self.name.clone(), u32::MAX);
            say(&Event::Progress { job, step, of: step, seconds: 1.0, fraction: 0.5 }, &[]);
        }
        if self.step * 2 >= of {
            self.misbehave();
            if self.asks_for("fail") {
                let error = "the stand-in was told to fail".to_owned();
                say(&Event::Failed { job: self.name.clone(), error, fatal: false }, &[]);
                return false;
            }
        }
        let (windows, limit) = BATCH;
        say(&Event::Batch { stage: Stage::Denoise, windows, limit, seconds: pace as f64 / 1e3 }, &[]);
        let seconds = self.begun.elapsed().as_secs_f64();
        let fraction = f64::from(self.step) / f64::from(of);
        say(&Event::Progress { job: self.name.clone(), step: self.step, of, seconds, fraction }, &[]);
        if self.step < of {
            return true;
        }
        let Input { mut width, mut height, seed, .. } = self.input;
        if self.asks_for("tiny") {
            (width, height) = (8, 8);
        }
        let steps = u64::from(of);
        let work = Work { unet_forwards: 26 * steps, text_encodes: 2, ..Work::default() };
        let count = self.input.num_outputs;
        let figures = |n| Figures { seam: Some(1.5), intra_lpips: Some(f64::from(n) / 8.0), ..Figures::default() };
        let figures = if self.input.evaluate { (0..count).map(figures).collect() } else { Vec::new() };
        let (job, peak_memory_bytes) = (self.name.clone(), 1 << 20);
        let done = Event::Done { job, width, height, seconds, work, peak_memory_bytes, figures };
        if count > 1 {
            let left_out = u32::from(self.asks_for("short"));
            for n in u32::from(self.asks_for("early"))..count - left_out {
                self.show(n, (width, height));
            }
            say(&done, &[]);
            return false;
        }
        let mut rgb = self.picture(seed, (width, height));
        if self.asks_for("bloated") {
            rgb.resize(256 << 20, 0);
        }
        say(&done, &rgb);
        false
    }

    /// Sends one of several pictures.
    fn show(&self, n: u32, (width, height): (u32, u32)) {
        let picture = self.picture(self.input.seed + u64::from(n), (width, height));
        say(&Event::Picture { job: self.name.clone(), n, width, height }, &picture);
    }

    /// The picture of a seed.
    fn picture(&self, seed: u64, (width, height): (u32, u32)) -> Vec<u8> {
        if self.asks_for("noise") { noise(width, height, seed) } else { gradient(width, height, seed) }
    }

    /// Crashes or hangs if the prompt asks for it.
    fn misbehave(&self) {
        if self.asks_for("crash") {
            eprintln!("the stand-in crashes");
            exit(3);
        }
        if let Some(file) = self.value("crash-once").filter(|file| !Path::new(file).exists()) {
            let _ = std::fs::write(file, "");
            exit(3);
        }
        if self.asks_for("fatal") {
            let error = "a sticky error of the device".to_owned();
            say(&Event::Failed { job: self.name.clone(), error, fatal: true }, &[]);
            exit(1);
        }
        if self.asks_for("hang") {
            thread::sleep(Duration::from_hours(1));
        }
    }
}

/// A picture of random bytes (xorshift).
fn noise(width: u32, height: u32, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..3 * width * height).map(|_| byte()).collect()
}

/// A picture with the seed in its blue channel.
fn gradient(width: u32, height: u32, seed: u64) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(3 * (width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            rgb.extend([(x * 255 / width) as u8, (y * 255 / height) as u8, seed as u8]);
        }
    }
    rgb
}
