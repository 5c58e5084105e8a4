//! A running server, and requests to it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;

/// After this time a test that waits fails.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Folder of the built programs: the folder of the test without `deps`.
fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let dir = test.parent().expect("a test lies in a folder");
    if dir.ends_with("deps") { dir.parent().expect("`deps` lies in a folder").to_owned() } else { dir.to_owned() }
}

/// The stand-in worker, which cargo builds before the tests of this package.
pub fn stand_in() -> PathBuf {
    programs().join("stand-in-worker")
}

/// `syncdiffusion`, built first if it does not exist or is older than its sources.
///
/// `cargo test --workspace` has built it; `cargo test -p tests` has not.
pub fn binary() -> PathBuf {
    static BUILD: Once = Once::new();
    let path = programs().join("syncdiffusion");
    BUILD.call_once(|| {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
        let newest =
            ["protocol", "prediction", "server"].iter().filter_map(|name| newest(&crates.join(name).join("src"))).max();
        let built = path.metadata().and_then(|is| is.modified()).ok();
        if built.zip(newest).is_none_or(|(built, newest)| built < newest) {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--bins"]);
            // With the features that the dependencies were built with, or all of them are compiled again.
            let whole = programs().join("syncdiffusion-worker").exists();
            build.args(if whole { &["--workspace"][..] } else { &["--package", "server", "--package", "tests"] });
            // The folder has the name of the profile, but that of `dev` is `debug`.
            let profile = programs().file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            build.arg("--profile").arg(if profile == "debug" { "dev" } else { &profile });
            build.arg("--target-dir").arg(programs().parent().expect("a profile lies in a target folder"));
            let built = build.current_dir(crates).status().expect("cargo runs");
            assert!(built.success(), "`syncdiffusion` does not build");
        }
    });
    path
}

/// Time of the last change in a folder.
fn newest(dir: &Path) -> Option<SystemTime> {
    let entries = dir.read_dir().ok()?.flatten();
    let changed = |path: PathBuf| if path.is_dir() { newest(&path) } else { path.metadata().ok()?.modified().ok() };
    entries.filter_map(|entry| changed(entry.path())).max()
}

/// A running server. It is killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its address.
    pub url: String,
    client: Client,
    log: Arc<Mutex<String>>,
    dir: Option<TempDir>,
}

/// The response to a request.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: reqwest::header::HeaderMap,
    /// Its body as text.
    pub text: String,
    /// Its body as JSON; null if it is something else.
    pub json: Value,
}

impl Server {
    /// Starts a server with its own data folder, and waits until its worker has loaded.
    pub async fn start(arguments: &[&str]) -> Self {
        let server = Self::launch(arguments, &[]);
        server.until_health(&["READY"]).await;
        server
    }

    /// Starts a server with its own data folder and extra environment variables, without waiting for its worker.
    pub fn launch(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the data");
        let mut server = Self::launch_in(dir.path(), arguments, environment);
        server.dir = Some(dir);
        server
    }

    /// Starts a server on a data folder, without waiting for its worker.
    pub fn launch_in(data: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::run(&["--data-dir".as_ref(), data.as_os_str()], arguments, environment)
    }

    /// Starts a server on a database, without waiting for its worker.
    pub fn launch_on(database: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::run(&["--database".as_ref(), database.as_ref()], arguments, environment)
    }

    fn run(store: &[&OsStr], arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        // A write beyond a limit of the size of files is to fail and not to end the process, so that tests can refuse
        // writes.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(binary());
        command.args(["serve", "--host", "127.0.0.1", "--port", "0"]).args(store);
        command.arg("--worker").arg(stand_in()).args(arguments).envs(environment.iter().copied());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("`syncdiffusion` can be started");
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = writeln!(kept.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
            }
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line).expect("stdout can be read");
        thread::spawn(move || _ = std::io::copy(&mut stdout, &mut std::io::sink()));
        let Some(address) = line.strip_prefix("Listening on ").and_then(|rest| rest.split(". ").next()) else {
            thread::sleep(Duration::from_millis(100));
            panic!("the server did not print its address: {line:?}\n{}", log.lock().unwrap());
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(TIMEOUT).no_proxy().build().expect("a client");
        Self { child, url: format!("http://{address}"), client, log, dir: None }
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the log contains some words, and returns the log.
    pub async fn logged(&self, words: &str) -> String {
        let end = Instant::now() + TIMEOUT;
        while !self.log().contains(words) {
            assert!(Instant::now() < end, "`{words}` is not in the log\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.log()
    }

    /// The process id of the server.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The most memory that the process has had, in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    }

    /// A request for [`Server::send`].
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Sends a request and reads the whole response.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()));
        let json = serde_json::from_str(&text).unwrap_or_default();
        Answer { status, headers, text, json }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path)).await
    }

    /// Sends a request with a JSON body and extra headers.
    pub async fn json(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = self.request(method, path).header("content-type", "application/json").body(body.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request).await
    }

    /// POST `/predictions`.
    pub async fn predict(&self, body: &Value) -> Answer {
        self.json("POST", "/predictions", &[], body).await
    }

    /// POST `/predictions` with `Prefer: respond-async`.
    pub async fn predict_async(&self, body: &Value) -> Answer {
        self.json("POST", "/predictions", &[("prefer", "respond-async")], body).await
    }

    /// Waits until the health is one of these states.
    pub async fn until_health(&self, wanted: &[&str]) -> Value {
        self.until("/health-check", |health| wanted.iter().any(|wanted| health["status"] == *wanted)).await
    }

    /// Waits until a prediction has ended.
    pub async fn ended(&self, id: &str) -> Value {
        let path = format!("/predictions/{id}");
        let over = |is: &Value| ["succeeded", "failed", "canceled"].iter().any(|end| is["status"] == *end);
        self.until(&path, over).await
    }

    /// Requests a path until the JSON of the response is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + TIMEOUT;
        loop {
            let answer = self.get(path).await;
            if wanted(&answer.json) {
                return answer.json;
            }
            assert!(Instant::now() < end, "`{path}` stays at {}\n{}", answer.text, self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Requests a path until the response has this status.
    pub async fn until_status(&self, path: &str, wanted: u16) {
        let end = Instant::now() + TIMEOUT;
        while self.get(path).await.status != wanted {
            assert!(Instant::now() < end, "`{path}` does not answer {wanted}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The value of a series of `/metrics`, 0 if it does not exist yet.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await.text;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_default()
    }

    /// Waits until a series of `/metrics` has this value.
    pub async fn until_metric(&self, series: &str, wanted: f64) {
        let end = Instant::now() + TIMEOUT;
        while self.metric(series).await < wanted {
            assert!(Instant::now() < end, "`{series}` stays below {wanted}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "`kill -{signal}` failed");
    }

    /// Waits until the process exits.
    pub async fn exit(&mut self) -> ExitStatus {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < end, "the server does not end\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills the process, like `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
    }
}
