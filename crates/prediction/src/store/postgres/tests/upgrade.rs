//! Nodes of two versions on the same tables.

use super::super::schema::{self, MAX_TURN, STEPS};
use super::*;

/// A version to come: it adds to the tables, and could not be made twice.
const NEXT: &str = "ALTER TABLE syncdiffusion.predictions ADD COLUMN colour text NOT NULL DEFAULT 'grey';
    CREATE INDEX predictions_colour ON syncdiffusion.predictions (colour);
    CREATE TABLE syncdiffusion.colours (name text PRIMARY KEY)";

fn url() -> Option<String> {
    database().filter(|_| !server::is_pooled())
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

/// Lets a role use the schema and its sequences, and no table yet.
fn let_in(role: &str) -> String {
    format!(
        "GRANT USAGE ON SCHEMA syncdiffusion TO {role}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA syncdiffusion TO {role}"
    )
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
            "CREATE ROLE {role} LOGIN; {};
            GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncdiffusion TO {role}",
            let_in(&role)
        ),
    );
    let error = bring(&url.replace("postgres@", &format!("{role}@")), &[NEXT]).await.unwrap_err();
    assert!(error.contains("must be owner of table predictions; let the user own the database"), "{error}");
    assert_eq!(text(&url, VERSION).await, STEPS.len().to_string());
}

/// Tables as version 2 made them.
async fn before(url: &str) {
    schema::bring(&client(url).await, &STEPS[..2], MAX_TURN).await.unwrap();
    for table in ["board", "usage_of_ends"] {
        execute(url, &format!("ALTER TABLE syncdiffusion.{table} REPLICA IDENTITY DEFAULT"));
    }
}

/// Upgrades, again where others have held the tables for too long.
fn upgrade(url: &str) -> tokio::task::JoinHandle<Result<(), String>> {
    let url = url.to_owned();
    tokio::spawn(async move {
        loop {
            match bring(&url, &[]).await {
                Err(error) if error.contains("lock timeout") => {}
                done => return done,
            }
        }
    })
}

#[tokio::test]
async fn an_upgrade_meets_no_transition_half_way() {
    let Some(url) = url() else { return };
    before(&url).await;
    // As `give_back`: first the board, then predictions. It would be told at once if the upgrade locked these the other
    // way round.
    let other = client(&url).await;
    other
        .batch_execute("SET deadlock_timeout = '1ms'; BEGIN; SELECT FROM syncdiffusion.board FOR UPDATE")
        .await
        .unwrap();
    let upgrade = upgrade(&url);
    until_waiting(&url).await;
    other.batch_execute("UPDATE syncdiffusion.predictions SET owed = owed; COMMIT").await.unwrap();
    upgrade.await.unwrap().unwrap();
    let named = "SELECT string_agg(relname::text, ' ' ORDER BY relname) FROM pg_class
        WHERE relnamespace = 'syncdiffusion'::regnamespace AND relkind = 'r' AND relreplident = 'f'";
    assert_eq!(text(&url, named).await, "board usage_of_ends");
}

#[tokio::test]
async fn an_upgrade_that_meets_whoever_leaves_tries_again() {
    let Some(url) = url() else { return };
    before(&url).await;
    execute(&url, "INSERT INTO syncdiffusion.nodes VALUES (7)");
    // First nodes, then predictions. It is the upgrade that finds out.
    let other = client(&url).await;
    let leave = "SET deadlock_timeout = '10min'; BEGIN; DELETE FROM syncdiffusion.nodes WHERE node = 7";
    other.batch_execute(leave).await.unwrap();
    let upgrade = upgrade(&url);
    until_waiting(&url).await;
    other.batch_execute("UPDATE syncdiffusion.predictions SET keeper = NULL; COMMIT").await.unwrap();
    upgrade.await.unwrap().unwrap();
    assert_eq!(text(&url, VERSION).await, STEPS.len().to_string());
    assert_eq!(text(&url, "SELECT count(*)::text FROM syncdiffusion.holders").await, "0");
}

/// What `accept` is called with by the node 7.
const ACCEPT: &str =
    "SELECT syncdiffusion.accept(7, gen_random_uuid(), 'a', '', NULL, false, 1, 1, NULL, '{}', 9, 9, 9, 0, 0,
    '{}', '{}', '{}', '{}', '{}')";

#[tokio::test]
async fn what_is_accepted_while_its_node_goes_is_left_to_others() {
    let Some(url) = url() else { return };
    drop(Postgres::open(&url).unwrap());
    execute(&url, "INSERT INTO syncdiffusion.nodes VALUES (7)");
    let other = client(&url).await;
    other.batch_execute(&format!("BEGIN; {ACCEPT}")).await.unwrap();
    // The end of a `reap` that began before the upgrade, and has locked no holder.
    let own = url.clone();
    let reap = thread::spawn(move || execute(&own, "DELETE FROM syncdiffusion.nodes WHERE node = 7"));
    until_waiting(&url).await;
    other.batch_execute("COMMIT").await.unwrap();
    reap.join().unwrap();
    let kept = "SELECT count(*)::text FROM syncdiffusion.predictions WHERE keeper IS NOT NULL";
    assert_eq!(text(&url, kept).await, "0");
}

#[tokio::test]
async fn the_rows_of_a_dump_go_into_tables_that_are_there() {
    let Some(url) = url() else { return };
    drop(Postgres::open(&url).unwrap());
    execute(&url, "INSERT INTO syncdiffusion.holders VALUES (50); INSERT INTO syncdiffusion.nodes VALUES (50)");
    assert_eq!(text(&url, "SELECT count(*)::text FROM syncdiffusion.holders WHERE node = 50").await, "1");
}

/// Gives all tables to a role.
fn give_tables(url: &str, owner: &str) {
    let give = format!(
        "DO $$ DECLARE made text; BEGIN
            FOR made IN SELECT oid::regclass::text FROM pg_class
                WHERE relnamespace = 'syncdiffusion'::regnamespace AND relkind = 'r'
            LOOP EXECUTE format('ALTER TABLE %s OWNER TO {owner}', made); END LOOP;
        END $$"
    );
    execute(url, &give);
}

/// All that a server of version 2, which was started before an upgrade, does with holders, by the functions that are
/// new. The node is 7.
async fn goes_on(url: &str) {
    execute(url, ACCEPT);
    execute(url, "SELECT syncdiffusion.claim(7, 1, true, '0', 1, 9, NULL, 1)");
    execute(url, "DO $$ BEGIN ASSERT (SELECT node = 7 AND keeper = 7 FROM syncdiffusion.predictions); END $$");
    execute(
        url,
        "SELECT syncdiffusion.reap(7, 0, 9, 1, array_agg(seq), array_agg(claim), '{a}', '{a}', '{f}', '{0}')
        FROM syncdiffusion.predictions",
    );
    execute(url, "INSERT INTO syncdiffusion.nodes VALUES (8)");
    assert_eq!(text(url, "SELECT string_agg(node::text, ' ') FROM syncdiffusion.holders").await, "8");
    // Whatever else a step makes: such a server can be started, too.
    drop(Postgres::open(url).unwrap());
}

/// Whom belongs what the steps to a version to come have made.
const OWNERS: &str = "SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class
    WHERE oid IN ('syncdiffusion.holders'::regclass, 'syncdiffusion.colours'::regclass)";

#[tokio::test]
async fn a_role_that_owns_nothing_goes_on_after_an_upgrade() {
    let Some(url) = url() else { return };
    before(&url).await;
    let (_, name) = url.rsplit_once('/').unwrap();
    let (owner, role) = (format!("owner_of_{name}"), format!("old_of_{name}"));
    // Tables to come have rights of their own from the beginning.
    execute(
        &url,
        &format!(
            "CREATE ROLE {owner}; CREATE ROLE {role} LOGIN;
            ALTER SCHEMA syncdiffusion OWNER TO {owner};
            {};
            GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncdiffusion TO {role};
            ALTER DEFAULT PRIVILEGES IN SCHEMA syncdiffusion GRANT SELECT ON TABLES TO {role}",
            let_in(&role)
        ),
    );
    give_tables(&url, &owner);
    let old = url.replace("postgres@", &format!("{role}@"));
    execute(&old, "INSERT INTO syncdiffusion.nodes VALUES (7)");
    bring(&url, &[NEXT]).await.unwrap();
    assert_eq!(text(&url, OWNERS).await, owner);
    goes_on(&old).await;
}

#[tokio::test]
async fn an_owner_that_can_own_nothing_more_goes_on_after_an_upgrade() {
    let Some(url) = url() else { return };
    before(&url).await;
    let (_, name) = url.rsplit_once('/').unwrap();
    let owner = format!("bare_owner_of_{name}");
    execute(&url, &format!("CREATE ROLE {owner} LOGIN; {}", let_in(&owner)));
    give_tables(&url, &owner);
    let old = url.replace("postgres@", &format!("{owner}@"));
    execute(&old, "INSERT INTO syncdiffusion.nodes VALUES (7)");
    bring(&url, &[NEXT]).await.unwrap();
    assert_eq!(text(&url, OWNERS).await, "postgres");
    goes_on(&old).await;
}
