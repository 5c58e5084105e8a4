//! A private PostgreSQL for the tests of this process, where there is one on this machine.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::store::postgres::execute;

/// The status with which the script ends where there is none.
const NONE: i32 = 69;
/// Refuses to change what has ended.
const GUARD: &str = include_str!("../../../../../scripts/guard.sql");

/// A server, which ends when its standard input is closed: with this value or this process, however that ends.
pub(in crate::store) struct Server {
    folder: String,
    _script: Child,
}

fn script() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/postgres.sh"))
}

impl Server {
    /// Starts one, with its port or an empty text, and settings; `None` where there is no PostgreSQL.
    pub(in crate::store) fn start(args: &[&str]) -> Option<Self> {
        let mut script = script().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if let Some(folder) = line.trim_end().strip_prefix("ready ") {
            return Some(Self { folder: folder.to_owned(), _script: script });
        }
        let status = script.wait().unwrap();
        assert_eq!(status.code(), Some(NONE), "the server does not start");
        assert!(std::env::var_os("NEED_POSTGRES").is_none(), "NEED_POSTGRES is set, and there is no PostgreSQL");
        None
    }

    /// The URL of one of its databases.
    pub(in crate::store) fn url(&self, name: &str) -> String {
        self.behind("", name)
    }

    fn behind(&self, pool: &str, name: &str) -> String {
        format!("postgres://postgres@{}/{name}", format!("{}{pool}", self.folder).replace('/', "%2F"))
    }
}

/// Whether the databases of tests are behind a PgBouncer.
pub(in crate::store) fn is_pooled() -> bool {
    std::env::var_os("THROUGH_PGBOUNCER").is_some()
}

/// The URL of a new database; `None` where there is no PostgreSQL.
pub(in crate::store) fn database() -> Option<String> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    static MADE: AtomicU32 = AtomicU32::new(0);
    // What is tested is not the disk.
    let args = ["", "fsync=off", "max_connections=300", if is_pooled() { "pgbouncer=on" } else { "pgbouncer=off" }];
    let start = || {
        let server = Server::start(&args)?;
        // New databases are copies of it.
        execute(&server.url("template1"), GUARD);
        Some(server)
    };
    let server = SERVER.get_or_init(start).as_ref()?;
    let name = format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed));
    execute(&server.url("postgres"), &format!("CREATE DATABASE {name}"));
    Some(server.behind(if is_pooled() { "/pool" } else { "" }, &name))
}
