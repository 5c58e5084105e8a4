//! A private PostgreSQL for tests, where there is one on this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// The status with which the script ends where there is none.
const NONE: i32 = 69;

/// A server with an empty database. It ends when its standard input is closed: with the test, however that ends.
#[derive(Debug)]
pub struct Database {
    folder: String,
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
            return Some(Self { folder: folder.to_owned(), script, said });
        }
        let status = script.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(NONE), "the server does not start");
        assert!(std::env::var_os("NEED_POSTGRES").is_none(), "NEED_POSTGRES is set, and there is no PostgreSQL");
        eprintln!("not run: there is no PostgreSQL");
        None
    }

    /// The URL of the database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.folder.replace('/', "%2F"))
    }

    /// The socket of the server.
    pub fn socket(&self) -> String {
        format!("{}/.s.PGSQL.5432", self.folder)
    }

    /// Ends the server as a crash does.
    pub fn kill(&mut self) {
        self.tell("kill");
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.tell("start");
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
        let psql = std::env::var("POSTGRES_BIN").map_or_else(|_| "psql".to_owned(), |bin| format!("{bin}/psql"));
        let output = Command::new(psql)
            .args(["-h", &self.folder, "-U", "postgres", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", sql])
            .output()
            .expect("psql can be started");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("psql writes UTF-8")
    }
}
