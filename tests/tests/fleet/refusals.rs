//! Databases that cannot be used: one sentence each, and nothing is changed.

use std::process::Command;

use tests::{Database, Server, binary};

use super::proxy::Proxy;
use super::quick;

/// What `serve` says before it ends.
pub(crate) fn refusal(url: &str) -> String {
    let said = refused(&["--database", url]);
    assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{said}");
    said
}

fn refused(flags: &[&str]) -> String {
    let output = Command::new(binary())
        .args(["serve", "--host", "127.0.0.1", "--port", "0", "--workers", "0"])
        .args(flags)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("hush"), "{said}");
    said
}

#[test]
fn a_wrong_url_is_explained() {
    for (url, why) in [
        ("mysql://u:hush@h/a", "does not begin with `postgres://`"),
        ("postgres://u:hush@localhost", "names no database"),
        ("postgres://u:hush@127.0.0.1:1/a", "database `a` at 127.0.0.1:1: the database does not answer"),
    ] {
        assert!(refusal(url).contains(why), "{}", refusal(url));
    }
}

#[test]
fn a_server_without_workers_needs_a_database() {
    let output = Command::new(binary())
        .args(["serve", "--host", "127.0.0.1", "--port", "0", "--workers", "0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--database"), "{said}");
}

#[test]
fn a_database_that_is_not_fit_is_left_alone() {
    let Some(database) = Database::start() else { return };
    let url = database.url();
    let tables = || {
        database.sql(
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text NOT LIKE 'pg%'",
        )
    };
    let of = |name: &str| format!("{}/{name}", url.rsplit_once('/').unwrap().0);
    assert!(refusal(&of("nowhere")).contains("database \"nowhere\" does not exist"));

    database.sql("CREATE TABLE users (name text)");
    let before = tables();
    assert!(refusal(&url).contains("the database holds tables of another program"));
    assert_eq!(tables(), before);

    database.sql("DROP TABLE users");
    database.sql("CREATE ROLE guest LOGIN");
    let guest = url.replace("postgres@", "guest@");
    assert!(refusal(&guest).contains("permission denied"));
    database.sql("CREATE SCHEMA syncdiffusion");
    assert!(refusal(&url).contains("has a schema `syncdiffusion` that this program did not make"));
    database.sql(
        "CREATE TABLE syncdiffusion.settings (name text, value text);
        INSERT INTO syncdiffusion.settings VALUES ('version', '9'), ('least_version', '8')",
    );
    assert!(refusal(&url).contains("the database is of version 9, which programs older than version 8 cannot use"));
    database.sql("UPDATE syncdiffusion.settings SET value = '0'");
    assert!(refusal(&url).contains("the database is of version 0, which this program does not know"));
}

#[tokio::test]
async fn servers_of_a_database_agree_on_its_settings() {
    let Some(database) = Database::start() else { return };
    let url = database.url();
    let flags = ["--workers", "0", "--fleet-dtype", "bf16"];
    let first = Server::launch_on(&url, &flags, &[]);
    let said = refused(&["--database", &url, "--fleet-dtype", "f16"]);
    assert!(said.contains("the servers of this database compute in bf16, and `--fleet-dtype` says f16"), "{said}");
    assert_eq!(database.sql("SELECT count(*) FROM syncdiffusion.nodes"), "1\n", "it has left no trace");
    drop(first);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_the_right_one_is_not() {
    let Some(database) = Database::start() else { return };
    database.sql("CREATE ROLE drawer LOGIN PASSWORD 'right @ last'");
    database.sql("CREATE DATABASE drawings OWNER drawer");
    database.admit(&["local all drawer scram-sha-256", "local all all trust"]);
    let of = |user: &str| database.url().replace("postgres@", user).replace("/postgres", "/drawings");
    let said = refusal(&of("drawer:hush@"));
    assert!(
        said.contains("password authentication failed for user \"drawer\"; check the user and the password"),
        "{said}"
    );
    let said = refusal(&of("drawer@"));
    assert!(said.contains("password missing; write the password into the URL"), "{said}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'syncdiffusion'";
    assert_eq!(database.sql_in("drawings", schemas), "0\n");
    let server = Server::launch_on(&of("drawer:right%20%40%20last@"), &[], &[]);
    server.until_health(&["READY"]).await;
    assert_eq!(server.predict(&quick("a")).await.json["status"], "succeeded");
    assert!(!server.log().contains("right @") && !server.log().contains("right%20"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_not_talked_to_in_clear() {
    let Some(database) = Database::start() else { return };
    let proxy = Proxy::start(&database).await;
    let said = refusal(&format!("{}?sslmode=verify-full", proxy.url()));
    assert!(
        said.contains("server does not support TLS; switch TLS on there (`ssl`), or add `sslmode=disable`"),
        "{said}"
    );
    let said = refusal(&format!("{}?sslmode=sometimes", proxy.url()));
    assert!(said.contains("`sslmode` is `disable` or `verify-full`"), "{said}");
    let said = refusal(&format!("{}?sslmode=verify-full&sslrootcert=/no/such", proxy.url()));
    assert!(said.contains("`sslrootcert`, the file `/no/such`"), "{said}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'syncdiffusion'";
    assert_eq!(database.sql(schemas), "0\n");
}

#[tokio::test]
async fn a_server_that_starts_while_the_database_is_away_says_so_and_ends() {
    let Some(mut database) = Database::start() else { return };
    let url = database.url();
    drop(Server::launch_on(&url, &["--workers", "0"], &[]));
    database.kill();
    let said = refusal(&url);
    assert!(said.contains("database `postgres` at ") && said.contains("the database does not answer: "), "{said}");
    database.restart();
    let server = Server::launch_on(&url, &[], &[]);
    server.until_health(&["READY"]).await;
    assert_eq!(server.predict(&quick("a")).await.json["status"], "succeeded");
}
