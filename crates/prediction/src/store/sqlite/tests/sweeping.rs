//! Retention in steps, and what is looked up by an index.

use std::sync::atomic::AtomicBool;

use super::super::sweep::{MAX_RECORDS, choose, step};
use super::*;

/// Rows of ended predictions, with pictures of a size or none.
fn history(dir: &Path, rows: u64, bytes: usize) {
    let mut connection = database(dir);
    let transaction = connection.transaction().unwrap();
    for seq in 1..=rows {
        let row = "INSERT INTO predictions (seq, id, status, attempts, completed_at, bytes, record)
            VALUES (?1, ?1, 'succeeded', 1, ?1, ?2, ?3)";
        let record = old_record(&seq.to_string(), seq, false);
        transaction.prepare_cached(row).unwrap().execute(rusqlite::params![seq, bytes, record]).unwrap();
        if bytes > 0 {
            let row =
                "INSERT INTO pictures (seq, n, kind, media, bytes) VALUES (?1, 0, 'output', 'image/png', zeroblob(?2))";
            transaction.prepare_cached(row).unwrap().execute(rusqlite::params![seq, bytes]).unwrap();
        }
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_step_removes_few_records_or_few_bytes() {
    let dir = tempfile::tempdir().unwrap();
    drop(Sqlite::open(dir.path()).unwrap());
    history(dir.path(), 120, 1 << 20);
    let connection = database(dir.path());
    let (mut steps, now) = (Vec::new(), Time::now());
    let retention = Retention { count: Some(20), ..Retention::default() };
    loop {
        let gone = step(&connection, &retention, now).unwrap();
        steps.push(gone.seqs.len());
        if !gone.more {
            break;
        }
    }
    assert_eq!(steps, [16, 16, 16, 16, 16, 16, 4]);
    drop(connection);

    let dir = tempfile::tempdir().unwrap();
    drop(Sqlite::open(dir.path()).unwrap());
    history(dir.path(), 120, 0);
    let old = Retention { age: Some(std::time::Duration::ZERO), ..Retention::default() };
    assert_eq!(step(&database(dir.path()), &old, now).unwrap().seqs.len(), MAX_RECORDS);
    assert_eq!(
        choose(&database(dir.path()), &Retention { count: Some(70), ..old }, now).unwrap().seqs.len(),
        MAX_RECORDS
    );
}

#[tokio::test]
async fn others_get_their_turn_and_the_log_stays_small() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    drop(Sqlite::open(dir.path()).unwrap());
    history(dir.path(), 200, 1 << 20);
    // What the other program has left of its log.
    database(dir.path()).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let store = Arc::new(Sqlite::open(dir.path()).unwrap());
    let swept = Arc::new(AtomicBool::new(false));
    let sweep = {
        let (store, swept) = (Arc::clone(&store), Arc::clone(&swept));
        tokio::spawn(async move {
            let gone = store.sweep(Retention { count: Some(10), ..Retention::default() }).await;
            swept.store(true, Ordering::Relaxed);
            gone
        })
    };
    let (mut between, mut log) = (0, 0);
    while !swept.load(Ordering::Relaxed) {
        accept(&*store, record(&format!("new {between}"))).await;
        between += 1;
        log = log.max(dir.path().join("predictions.sqlite-wal").metadata().map_or(0, |found| found.len()));
        tokio::task::yield_now().await;
    }
    assert_eq!(sweep.await.unwrap().unwrap(), 190);
    assert!(between > 24, "{between} were accepted beside 12 steps");
    assert!(log < 40 << 20, "the log grew to {log} bytes");
}

#[tokio::test]
async fn statements_look_up_an_index() {
    let dir = tempfile::tempdir().unwrap();
    drop(Sqlite::open(dir.path()).unwrap());
    let connection = database(dir.path());
    let plan = |sql: &str| {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    let ended = rows::ENDED;
    for (sql, wanted) in [
        (
            "SELECT record FROM predictions WHERE status = 'failed' AND seq > 1 AND seq < 9 ORDER BY seq DESC LIMIT 3"
                .to_owned(),
            "SEARCH predictions USING INDEX predictions_by_status (status=? AND seq>? AND seq<?)",
        ),
        (
            format!("SELECT seq, bytes, owed FROM predictions INDEXED BY predictions_ended WHERE {ended} ORDER BY seq"),
            "SCAN predictions USING COVERING INDEX predictions_ended",
        ),
        (
            format!(
                "SELECT seq, bytes FROM predictions INDEXED BY predictions_by_end
                WHERE {ended} AND owed = 0 AND completed_at < 5 ORDER BY completed_at"
            ),
            "SEARCH predictions USING COVERING INDEX predictions_by_end (completed_at<?)",
        ),
        ("SELECT seq FROM predictions WHERE owed ORDER BY seq".to_owned(), "predictions_owed"),
        ("SELECT seq FROM predictions WHERE tenant = 'a' AND key = 'b'".to_owned(), "predictions_by_key"),
    ] {
        let plan = plan(&sql);
        assert!(plan.contains(wanted) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
}
