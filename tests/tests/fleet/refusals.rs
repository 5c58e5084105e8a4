//! Databases that cannot be used: one sentence each, and nothing is changed.

use std::process::Command;

use tests::{Database, Server, binary};

/// What `serve` says before it ends.
fn refusal(url: &str) -> String {
    refused(&["--database", url])
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
