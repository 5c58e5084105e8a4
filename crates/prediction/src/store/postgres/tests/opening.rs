//! Databases that cannot be used, and what is said of them.

use super::*;
use crate::store::inspect_database;

/// What is said of a database that a store refuses; `doctor` says the same.
fn refused(url: &str) -> String {
    let error = Postgres::open(url).err().expect("it cannot be used").to_string();
    assert_eq!(inspect_database(url).unwrap_err().to_string(), error);
    error
}

fn url() -> Option<String> {
    database().filter(|_| !server::is_pooled())
}

#[test]
fn the_tables_of_another_program_are_left_alone() {
    let Some(url) = url() else { return };
    execute(&url, "CREATE TABLE others (a integer)");
    let error = refused(&url);
    assert!(error.contains("tables of another program; make an empty one with `createdb`"), "{error}");
    execute(&url, "CREATE SCHEMA syncdiffusion");
    let error = refused(&url);
    assert!(error.contains("a schema `syncdiffusion` that this program did not make"), "{error}");
    execute(&url, "DROP SCHEMA syncdiffusion; DROP TABLE others");
    assert!(inspect_database(&url).unwrap().found.ends_with("it is empty, and gets its tables with the first start"));
    Postgres::open(&url).unwrap();
    let found = inspect_database(&url).unwrap();
    assert!(found.found.ends_with("it has its tables"));
    assert_eq!(found.warnings, ["`fsync` is `off`: a power cut may damage the database"]);
}

#[test]
fn versions_work_side_by_side_as_far_as_the_newest_says() {
    let Some(url) = url() else { return };
    Postgres::open(&url).unwrap();
    let set = |name: &str, value: u32| {
        execute(&url, &format!("UPDATE syncdiffusion.settings SET value = '{value}' WHERE name = '{name}'"));
    };
    set("version", 7);
    Postgres::open(&url).unwrap();
    set("least_version", 7);
    let error = refused(&url);
    assert!(error.contains("is of version 7, which programs older than version 7 cannot use"), "{error}");
    set("version", 0);
    set("least_version", 0);
    let error = refused(&url);
    assert!(error.contains("is of version 0, which this program does not know"), "{error}");
}

#[test]
fn a_role_needs_rights() {
    let Some(url) = url() else { return };
    let (_, name) = url.rsplit_once('/').unwrap();
    let guest = url.replace("postgres@", &format!("guest_of_{name}@"));
    execute(&url, &format!("CREATE ROLE guest_of_{name} LOGIN"));
    let error = Postgres::open(&guest).err().unwrap().to_string();
    assert!(error.contains("permission denied for database") && error.contains("let the user own"), "{error}");
    Postgres::open(&url).unwrap();
    execute(&url, &format!("GRANT USAGE ON SCHEMA syncdiffusion TO guest_of_{name}"));
    execute(&url, &format!("GRANT SELECT ON ALL TABLES IN SCHEMA syncdiffusion TO guest_of_{name}"));
    let error = Postgres::open(&guest).err().unwrap().to_string();
    assert!(error.contains("may not read and write the tables"), "{error}");
    execute(
        &url,
        &format!(
            "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncdiffusion TO guest_of_{name};
            GRANT USAGE ON ALL SEQUENCES IN SCHEMA syncdiffusion TO guest_of_{name}"
        ),
    );
    Postgres::open(&guest).unwrap();
    execute(
        &url,
        "DO $$ BEGIN EXECUTE (
            SELECT 'REVOKE EXECUTE ON FUNCTION ' || oid::regprocedure::text || ' FROM PUBLIC' FROM pg_proc
            WHERE proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype
        ); END $$",
    );
    Postgres::open(&guest).unwrap();
    let warnings = inspect_database(&guest).unwrap().warnings;
    let warning = warnings.last().unwrap();
    assert!(warning.contains("may not probe whether commits are confirmed"), "{warnings:?}");
    execute(&url, warning.rsplit('`').nth(1).unwrap());
    assert_eq!(inspect_database(&guest).unwrap().warnings.len(), warnings.len() - 1, "what it says helps");
}

#[test]
fn what_is_not_there_is_named() {
    let Some(url) = url() else { return };
    let (server, name) = url.rsplit_once('/').unwrap();
    let error = refused(&format!("{server}/nothing"));
    assert!(error.contains("`nothing` at") && error.contains("make it with `createdb`"), "{error}");
    let error = refused("postgres://nobody@127.0.0.1:1/nothing");
    assert!(error.contains("database `nothing` at 127.0.0.1:1") && error.contains("does not answer"), "{error}");
    let error = refused(&url.replace("postgres@", "nobody_known@"));
    assert!(error.contains("role \"nobody_known\" does not exist") && error.contains(name), "{error}");
}

#[tokio::test]
async fn all_nodes_have_the_same_settings() {
    let Some(url) = database() else { return };
    let (a, b) = (Postgres::open(&url).unwrap(), Postgres::open(&url).unwrap());
    assert_eq!(b.known("secret").unwrap(), None);
    assert_eq!(a.setting("secret", "first".to_owned()).unwrap(), "first");
    assert_eq!(b.setting("secret", "second".to_owned()).unwrap(), "first");
    assert_eq!(b.known("secret").unwrap().as_deref(), Some("first"));
}
