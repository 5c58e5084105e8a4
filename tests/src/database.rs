//! A private PostgreSQL for tests, where there is one on this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The status with which the script ends where there is none.
const NONE: i32 = 69;
/// After this time a test that waits fails.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Refuses to change what has ended, in every test.
const GUARD: &str = include_str!("../../scripts/guard.sql");

/// A server with an empty database. It ends when its standard input is closed: with the test, however that ends. A test
/// in which something was to end twice fails.
#[derive(Debug)]
pub struct Database {
    folder: String,
    /// Folder of the socket of the primary.
    primary: String,
    script: Child,
    said: BufReader<ChildStdout>,
}

impl Database {
    /// Starts a server; `None`, and a line that says so, where there is none. With `NEED_POSTGRES` there must be one.
    pub fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres.sh");
        let mut script = Command::new(script)
            .args(["", "fsync=off", "max_connections=200"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the script can be started");
        let mut said = BufReader::new(script.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("stdout can be read");
        if let Some(folder) = line.trim_end().strip_prefix("ready ") {
            let database = Self { folder: folder.to_owned(), primary: folder.to_owned(), script, said };
            database.sql(GUARD);
            return Some(database);
        }
        let status = script.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(NONE), "the server does not start");
        assert!(std::env::var_os("NEED_POSTGRES").is_none(), "NEED_POSTGRES is set, and there is no PostgreSQL");
        eprintln!("not run: there is no PostgreSQL");
        None
    }

    /// The URL of the database.
    pub fn url(&self) -> String {
        self.of(&[""])
    }

    /// The URL of the standby alone.
    pub fn standby_url(&self) -> String {
        self.of(&["/standby"])
    }

    /// The URL of both, whichever is the primary.
    pub fn url_of_both(&self) -> String {
        format!("{}?target_session_attrs=read-write", self.of(&["", "/standby"]))
    }

    fn of(&self, servers: &[&str]) -> String {
        let hosts = servers.iter().map(|server| format!("{}{server}", self.folder).replace('/', "%2F"));
        format!("postgres://postgres@{}/postgres", hosts.collect::<Vec<_>>().join(","))
    }

    /// The socket of the server.
    pub fn socket(&self) -> String {
        format!("{}/.s.PGSQL.5432", self.folder)
    }

    /// User and group of the server.
    pub fn owner(&self) -> (u32, u32) {
        let folder = Path::new(&self.folder).metadata().expect("the folder is there");
        (folder.uid(), folder.gid())
    }

    /// Ends the server as a crash does.
    pub fn kill(&mut self) {
        self.tell("kill");
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.tell("start");
    }

    /// Makes a synchronous standby.
    pub fn add_standby(&mut self) {
        self.tell("standby");
    }

    /// Has the standby stand still, so that commits wait for it.
    pub fn pause_standby(&mut self) {
        self.tell("pause");
    }

    /// Lets it go on.
    pub fn resume_standby(&mut self) {
        self.tell("resume");
    }

    /// Makes the standby the primary, after the first one was killed.
    pub fn promote(&mut self) {
        self.tell("promote");
        self.primary = format!("{}/standby", self.folder);
    }

    fn tell(&mut self, word: &str) {
        let stdin = self.script.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{word}").and_then(|()| stdin.flush()).expect("the script listens");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("stdout can be read");
        assert_eq!(line, "done\n");
    }

    /// Executes SQL; the rows that it returns, one a line.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    /// Waits until a query returns what is wanted.
    pub async fn until(&self, sql: &str, wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + TIMEOUT;
        loop {
            let rows = self.sql(sql);
            if wanted(&rows) {
                return;
            }
            assert!(Instant::now() < end, "{sql} stays at {rows}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Replaces the rules of who may connect, `pg_hba.conf`.
    pub fn admit(&self, rules: &[&str]) {
        let file = self.sql("SHOW hba_file");
        let rules = rules.iter().map(|rule| format!("('{rule}')")).collect::<Vec<_>>().join(", ");
        self.sql(&format!("COPY (VALUES {rules}) TO '{}'", file.trim()));
        self.sql("SELECT pg_reload_conf()");
    }

    /// The same in another database of the server.
    pub fn sql_in(&self, name: &str, sql: &str) -> String {
        let psql = std::env::var("POSTGRES_BIN").map_or_else(|_| "psql".to_owned(), |bin| format!("{bin}/psql"));
        let output = Command::new(psql)
            .args(["-h", &self.primary, "-U", "postgres", "-d", name, "-v", "ON_ERROR_STOP=1", "-qAt", "-c", sql])
            .output()
            .expect("psql can be started");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("psql writes UTF-8")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let log = std::fs::read(format!("{}/log", self.folder)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let twice: Vec<_> = log.lines().filter(|line| line.contains("ERROR") && line.contains("ends twice")).collect();
        assert!(twice.is_empty() || thread::panicking(), "{twice:?}");
    }
}
