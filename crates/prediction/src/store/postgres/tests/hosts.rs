//! URLs with several hosts, of which one is the primary.

use std::net::TcpListener;

use super::*;
use crate::store::suite::server::is_pooled;

/// The URL of a database with another host before its own.
fn behind(url: &str, first: &str) -> String {
    let (user, rest) = url.split_once('@').unwrap();
    format!("{user}@{first},{rest}")
}

#[tokio::test]
async fn a_silent_host_does_not_keep_from_the_next() {
    let Some(url) = database().filter(|_| !is_pooled()) else { return };
    // As a machine that hangs: it takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let store = Postgres::open(&behind(&url, &format!("127.0.0.1:{port}"))).unwrap();
    assert_eq!(accept(&store, record("1")).await, 1);
}

#[tokio::test]
async fn a_host_that_may_not_write_is_passed_over() {
    let Some(url) = database().filter(|_| !is_pooled()) else { return };
    let (server, name) = url.rsplit_once('/').unwrap();
    execute(&format!("{server}/postgres"), &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    let folder = server.split_once('@').unwrap().1;
    let error = Postgres::open(&behind(&url, folder)).err().unwrap().to_string();
    assert!(error.contains("does not allow writes; no host of the URL is a primary"), "{error}");
    // What a server says comes before what is said of one that is away.
    let error = Postgres::open(&behind(&url, "127.0.0.1:1").replace(name, "nothing")).err().unwrap().to_string();
    assert!(error.contains("make it with `createdb`"), "{error}");
    // A URL with one host does not look, and says it with the first write.
    let error = Postgres::open(&url).err().unwrap().to_string();
    assert!(error.contains("read-only transaction; this is a standby; name the primary in the URL"), "{error}");
}
