//! Nodes of two versions on the same tables.

use tokio_postgres::Client;

use super::super::schema::{self, MAX_TURN, STEPS};
use super::*;

/// A version to come: it adds to the tables, and could not be made twice.
const NEXT: &str = "ALTER TABLE syncdiffusion.predictions ADD COLUMN colour text NOT NULL DEFAULT 'grey';
    CREATE INDEX predictions_colour ON syncdiffusion.predictions (colour);
    CREATE TABLE syncdiffusion.colours (name text PRIMARY KEY)";

fn url() -> Option<String> {
    database().filter(|_| !server::is_pooled())
}

async fn client(url: &str) -> Client {
    connect(&Address::parse(url).unwrap()).await.unwrap()
}

/// Makes the steps of a version to come.
async fn bring(url: &str, more: &[&'static str]) -> Result<(), String> {
    let steps = [STEPS, more].concat();
    schema::bring(&client(url).await, &steps, MAX_TURN).await.map_err(|error| error.to_string())
}

/// The text that a query returns.
async fn text(url: &str, sql: &str) -> String {
    client(url).await.query_typed(sql, &[]).await.unwrap()[0].get(0)
}

const VERSION: &str = "SELECT value FROM syncdiffusion.settings WHERE name = 'version'";

#[tokio::test]
async fn servers_that_start_together_upgrade_once_and_old_ones_go_on() {
    let Some(url) = url() else { return };
    let old = Postgres::open(&url).unwrap();
    for id in ["held", "waits", "more"] {
        accept(&old, record(id)).await;
    }
    let held = claim(&old).await;
    let starts = (0..4).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { bring(&url, &[NEXT]).await })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    assert_eq!(text(&url, VERSION).await, (STEPS.len() + 1).to_string());
    // What was there is there, and the old node does all it did.
    let ended = old.finish(&held.claim, succeeded(&held), vec![picture(b"png")]).await.unwrap();
    assert!(matches!(ended, Outcome::Ended(_)));
    assert!(matches!(old.beat(&About::default(), Vec::new()).await.unwrap(), Beat::Alive { .. }));
    accept(&old, record("new")).await;
    let claimed = old.claim(Wants::any(2)).await.unwrap();
    assert_eq!(claimed.iter().map(|one| &*one.record.prediction.id).collect::<Vec<_>>(), ["waits", "more"]);
    old.give_back(&claimed[0].claim, false, String::new()).await.unwrap();
    assert!(matches!(old.stop("new").await.unwrap(), Stopped::Ended(_)));
    assert!(old.delete("held").await.unwrap());
    // An old program starts beside new ones, too, unless they say that it may not.
    let again = Postgres::open(&url).unwrap();
    assert_eq!(claim(&again).await.record.prediction.id, "waits");
    assert!(crate::store::inspect_database(&url).unwrap().found.ends_with("it has its tables"));
}

#[tokio::test]
async fn what_nodes_of_version_2_hold_is_theirs_after_an_upgrade() {
    let Some(url) = url() else { return };
    schema::bring(&client(&url).await, &STEPS[..2], MAX_TURN).await.unwrap();
    // One that works, and one that has left nothing behind.
    execute(&url, "INSERT INTO syncdiffusion.nodes VALUES (7), (8)");
    execute(
        &url,
        "INSERT INTO syncdiffusion.predictions (seq, id, status, tenant, units, rank, wire, node, claim, attempts, begun,
            record) VALUES (nextval('syncdiffusion.numbers'), 'a', 'processing', '', 1, 1, 1, 7, gen_random_uuid(), 1,
            true, '{}')",
    );
    let new = Postgres::open(&url).unwrap();
    execute(&url, "DELETE FROM syncdiffusion.nodes WHERE node = 8");
    let forget = client(&url).await.batch_execute("DELETE FROM syncdiffusion.nodes WHERE node = 7").await;
    assert!(forget.unwrap_err().as_db_error().unwrap().message().contains("violates foreign key"));
    // An old program registers as it always did.
    execute(&url, "INSERT INTO syncdiffusion.nodes VALUES (9)");
    let holders = "SELECT string_agg(node::text, ' ' ORDER BY node) FROM syncdiffusion.holders WHERE node > 6";
    assert_eq!(text(&url, holders).await, "7 9");
    accept(&new, record("b")).await;
    assert_eq!(claim(&new).await.record.prediction.id, "b");
}

#[tokio::test]
async fn an_upgrade_that_fails_changes_nothing() {
    let Some(url) = url() else { return };
    drop(Postgres::open(&url).unwrap());
    let error = bring(&url, &[NEXT, "SELECT 1 / 0"]).await.unwrap_err();
    assert!(error.contains("division by zero"), "{error}");
    assert_eq!(text(&url, VERSION).await, STEPS.len().to_string());
    assert_eq!(text(&url, "SELECT (to_regclass('syncdiffusion.colours') IS NULL)::text").await, "true");
    // A dump uses all tables for as long as it takes; whoever beats and claims does not wait for its end.
    let dump = client(&url).await;
    dump.batch_execute("BEGIN; LOCK TABLE syncdiffusion.predictions IN ACCESS SHARE MODE").await.unwrap();
    let error = bring(&url, &[NEXT]).await.unwrap_err();
    assert!(error.contains("lock timeout; somebody uses the tables"), "{error}");
    dump.batch_execute("COMMIT").await.unwrap();
    bring(&url, &[NEXT]).await.unwrap();
    assert_eq!(text(&url, VERSION).await, (STEPS.len() + 1).to_string());
}

#[tokio::test]
async fn a_role_that_may_only_use_the_tables_cannot_upgrade_them() {
    let Some(url) = url() else { return };
    drop(Postgres::open(&url).unwrap());
    let (_, name) = url.rsplit_once('/').unwrap();
    let role = format!("user_of_{name}");
    execute(
        &url,
        &format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA syncdiffusion TO {role};
            GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncdiffusion TO {role};
            GRANT USAGE ON ALL SEQUENCES IN SCHEMA syncdiffusion TO {role}"
        ),
    );
    let error = bring(&url.replace("postgres@", &format!("{role}@")), &[NEXT]).await.unwrap_err();
    assert!(error.contains("must be owner of table predictions; let the user own the database"), "{error}");
    assert_eq!(text(&url, VERSION).await, STEPS.len().to_string());
}
